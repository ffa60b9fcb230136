"""Who may import whom, read from the imports; where third-party packages and the environment are at
home.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.architecture.checks.tree import SERVICES, Import, Module, dotted, imports, modules

GENERATED = re.compile(r"stellwerk\.(?!client\b|conformance\b|wire\b)\w+\.v\d+(\.|$)")
OUR_PACKAGES = ("services", "stellwerk", "tests", "benchmarks", "tools", "demo")
# The owner's prefix → what of our own code it may import, besides itself and generated code.
LAYERS: dict[str, tuple[str, ...]] = {
    "stellwerk.wire": (),
    "services.chassis": ("stellwerk.wire",),
    **{f"services.{service}": ("stellwerk.wire", "services.chassis") for service in SERVICES},
    # The command of the client is the way into the conformance suite, which stores its models with
    # the client.
    "stellwerk.client": ("stellwerk.wire", "stellwerk.conformance"),
    "stellwerk.conformance": ("stellwerk.client",),
    # The settings of all services are checked before any of them is started.
    "services.local": (
        "stellwerk.wire",
        "services.chassis.config",
        *(f"services.{service}.config" for service in SERVICES),
    ),
}
# The local mongod is asked over its own protocol whether it is up.
MONGO_HOMES = (
    "services/local/backing/mongod.py",
    "services/chassis/mongo.py",
    "services/*/mongo.py",
    "services/controlplane/audit/entries.py",
    "services/controlplane/identity/signing_key_store.py",
    "services/controlplane/identity/store.py",
    "services/repository/artifacts/artifact_store.py",
    "services/repository/catalogue/models.py",
    "services/repository/events/outbox.py",
)
# Third-party package → the only files that may import it.
HOMES: dict[str, tuple[str, ...]] = {
    "pika": (
        "services/chassis/broker/amqp/connection.py",
        # Tries a RabbitMQ that the user of `stellwerk up` names.
        "services/local/backing/rabbitmq.py",
    ),
    "pymongo": MONGO_HOMES,
    "bson": MONGO_HOMES,
    "gridfs": MONGO_HOMES,
    "torch": ("services/runtime/formats/", "sdk/stellwerk/client/packaging/"),
    "jwt": (
        "services/chassis/access/token_verifier.py",
        "services/controlplane/identity/signing_keys.py",
    ),
}
# Modules that do I/O, wait, read a clock or roll dice; `wire` is pure and has none of them.
IMPURE = (
    "asyncio",
    "http",
    "httpx",
    "os",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "time",
    "uuid",
)
# Entry points; the one of `stellwerk up` hands its environment to the processes it starts.
ENVIRONMENT_HOMES = (
    "services/*/__main__.py",
    "services/chassis/__init__.py",  # what gRPC reads at its import
    "sdk/stellwerk/client/settings.py",
    "services/local/cli.py",
)
ENVIRONMENT = ("os.environ", "os.environb", "os.getenv", "os.putenv")


def _own_layer(module: Module) -> str:
    return next(
        (layer for layer in LAYERS if module.name == layer or module.name.startswith(layer + ".")),
        "",
    )


def _allowed(module: Module, wanted: Import) -> bool:
    if not wanted.within(*OUR_PACKAGES) or GENERATED.match(wanted.target):
        return True
    layer = _own_layer(module)
    return bool(layer) and wanted.within(layer, *LAYERS[layer])


def layers(root: Path) -> list[str]:
    """Imports of our own code that the table above does not allow."""
    return [
        module.at(found.line, f"{module.name} may not import {found.target}")
        for module in modules(root)
        for found in imports(module)
        if not _allowed(module, found)
    ]


def third_party_homes(root: Path) -> list[str]:
    """Imports of a package outside the files that hide it from the rest."""
    return [
        module.at(found.line, f"{found.target} may be imported only in {', '.join(homes)}")
        for module in modules(root)
        for found in imports(module)
        for package, homes in HOMES.items()
        if found.within(package) and not module.matches(*homes)
    ]


def purity(root: Path) -> list[str]:
    """Imports of `wire` that would let it do I/O or read a clock."""
    return [
        module.at(found.line, f"wire is pure and may not import {found.target}")
        for module in modules(root, ("sdk/stellwerk/wire",))
        for found in imports(module)
        if found.within(*IMPURE)
    ]


def environment(root: Path) -> list[str]:
    """Uses of the environment's variables outside the places that hand them to the settings."""
    found = []
    for module in modules(root):
        if module.matches(*ENVIRONMENT_HOMES):
            continue
        uses = {
            node.lineno
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute) and dotted(node) in ENVIRONMENT
        }
        uses |= {wanted.line for wanted in imports(module) if wanted.target in ENVIRONMENT}
        found += [
            module.at(line, "the environment is read in __main__.py alone") for line in sorted(uses)
        ]
    return found


def cycles(root: Path) -> list[str]:
    """Returns a complaint for each group of modules that import each other.

    Imports inside functions and imports for the type checker count: whoever reads one of these
    modules must read the others too.
    """
    known = {module.name: module for module in modules(root)}
    graph = {
        name: {
            target
            for found in imports(module)
            if (target := _resolve(found.target, known)) and target != name
        }
        for name, module in known.items()
    }
    return [f"import cycle: {' → '.join(group)}" for group in _cycles(graph)]


def _resolve(target: str, known: dict[str, Module]) -> str:
    while target and target not in known:
        target = target.rpartition(".")[0]
    return target


def _cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected groups of more than one module: those that reach each other."""
    reach = {name: _reachable(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph
    }
    return sorted(list(group) for group in groups if len(group) > 1)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen
