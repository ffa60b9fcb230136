"""Takes deliveries from the broker and hands their requests on. Imports all rooms but fleet."""
