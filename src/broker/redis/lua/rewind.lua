--[[
  Finds from where topics have their last events. Data is not returned.

  KEYS       the topics' rings
  ARGV[1]    the oldest position that counts
  ARGV[2]    how many events are the last ones
  ARGV[3]    after how many entries that were looked at no further ring is begun

  Returns    for each ring that was looked at, in order: "id prev" of the first of its last events, '' where there is none
]]
local from, count, budget = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local answer = {}

-- a few at a time: Lua holds the data of all that one command returns
local MOST = 50

local function firstOfLast(ring)
  if redis.call('XLEN', ring) <= count then return redis.call('XRANGE', ring, from, '+', 'COUNT', 1)[1] end
  local first, last, left = nil, '+', count
  while left > 0 do
    local asked = math.min(left, MOST)
    local some = redis.call('XREVRANGE', ring, last, from, 'COUNT', asked)
    budget = budget - #some
    first = some[#some] or first
    if #some < asked then break end
    last, left = '(' .. first[1], left - asked
  end
  return first
end

for _, ring in ipairs(KEYS) do
  if budget <= 0 then break end
  budget = budget - 1
  local first = firstOfLast(ring)
  answer[#answer + 1] = first and first[1] .. ' ' .. string.match(first[2][2], '^%S+') or ''
end
return answer
