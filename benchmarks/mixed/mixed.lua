-- Sends requests drawn at random from a file, each with a number of its own as its id, and ends with one line of JSON.
-- The argument after "--" is the file: for each request a line with two lengths, then the bytes before and behind the id.
dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "../result.lua")

local before, behind, count, number = {}, {}, 0, 0

function init(args)
  -- The same seed gives every system the same requests in the same order.
  math.randomseed(7)
  local file = io.open(args[1], "rb")
  local line = file:read("*l")
  while line do
    local first, second = line:match("^(%d+) (%d+)$")
    count = count + 1
    before[count], behind[count] = file:read(tonumber(first)), file:read(tonumber(second))
    line = file:read("*l")
  end
  file:close()
end

function request()
  local drawn = math.random(count)
  number = number + 1
  return before[drawn] .. string.format("%012d", number) .. behind[drawn]
end
