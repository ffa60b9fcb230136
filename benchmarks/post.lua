-- Repeats one POST whose body and headers come from files, and ends with one line of JSON.
-- Arguments after "--": the file that holds the body, then the file that holds "Name: value" lines.
dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "result.lua")

function init(args)
  local body = io.open(args[1], "rb")
  wrk.method = "POST"
  wrk.body = body:read("*a")
  body:close()
  for line in io.lines(args[2]) do
    local name, value = line:match("^([^:]+): (.*)$")
    wrk.headers[name] = value
  end
end
