--[[
  Stores how much a client did on an instance lately, and reads how much it did on all others. Counts that are too old are
  removed.

  KEYS[1]    tally: a hash of "count ms" by instance; ms: when the count was stored
  ARGV[1]    the instance
  ARGV[2]    how much the client did there since the last call
  ARGV[3]    for how many ms a count is true

  Returns    how much it did on all other instances
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local others = 0
local counts = redis.call('HGETALL', KEYS[1])
for i = 1, #counts, 2 do
  local count, ms = string.match(counts[i + 1], '^(%d+) (%d+)$')
  if now - ms > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], counts[i])
  elseif counts[i] ~= ARGV[1] then
    others = others + count
  end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f', ARGV[2], now))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return others
