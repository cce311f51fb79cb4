--[[
  Finds from where topics have their last events. Data is not returned.

  KEYS       the topics' rings
  ARGV[1]    how many events are the last ones
  ARGV[2]    after how many entries that were looked at no further ring is begun
  ARGV[3]    the time (ms): what has run out by then doesn't count
  ARGV[4...] for each ring: the oldest position that counts

  Returns    for each ring that was looked at, in order: "id prev" of the first of its last events, '' where there is none
]]
local count, budget, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local answer = {}

-- a few at a time: Lua holds the data of all that one command returns
local MOST = 50

-- the head of an entry: the id before, when it runs out (ms, or '-'), its encoding and type
local function isHeld(entry)
  local expires = tonumber(string.match(entry[2][2], '^%S+ (%S+)'))
  return not expires or expires > now
end

local function firstOfLast(ring, from)
  if redis.call('XLEN', ring) <= count then return redis.call('XRANGE', ring, from, '+', 'COUNT', 1)[1] end
  local first, last, left, looked = nil, '+', count, 0
  while true do
    local asked = math.min(math.max(left, looked), MOST)
    local some = redis.call('XREVRANGE', ring, last, from, 'COUNT', asked)
    budget, looked = budget - #some, looked + #some
    for _, entry in ipairs(some) do
      first = entry
      if isHeld(entry) then left = left - 1 end
      if left == 0 then return first end
    end
    if #some < asked then return first end
    last = '(' .. first[1]
  end
end

for i, ring in ipairs(KEYS) do
  if budget <= 0 then break end
  budget = budget - 1
  local first = firstOfLast(ring, ARGV[3 + i])
  answer[#answer + 1] = first and first[1] .. ' ' .. string.match(first[2][2], '^%S+') or ''
end
return answer
