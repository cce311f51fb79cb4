--[[
  Tells how much somebody did on an instance lately, and reads how much on all others.

  KEYS[1]    tally: a hash of "count ms" by instance
  ARGV[1]    the instance
  ARGV[2]    how much, since it told last
  ARGV[3]    for how many milliseconds that is true

  Returns    how much on the others
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local others = 0
local told = redis.call('HGETALL', KEYS[1])
for i = 1, #told, 2 do
  local count, ms = string.match(told[i + 1], '^(%d+) (%d+)$')
  if now - ms > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], told[i])
  elseif told[i] ~= ARGV[1] then
    others = others + count
  end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f', ARGV[2], now))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return others
