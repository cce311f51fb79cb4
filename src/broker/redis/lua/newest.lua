--[[
  Reads the newest event of each topic of one wildcard in one shard, or of one topic, of those that had events after a position: the topics
  first whose newest event is the oldest. It goes by the index, and so looks at about as many topics as it answers with.

  KEYS[1]    clock: a hash of ms and seq (the id given last), birth and lost
  KEYS[2]    index: a sorted set of topics by the ms of their last id
  ARGV[1]    what the key of a ring begins with; it has the shard's hash tag
  ARGV[2]    the position to start after
  ARGV[3]    the oldest position that counts
  ARGV[4]    at most about so many topics: those whose last ids have one ms go together
  ARGV[5]    the one topic; '' for all of the wildcard

  Returns    {last id given or '', birth or '', lost or '', complete, then for each topic: topic, '', its entry in a list};
             complete: no other topic has its last id after the position and up to here
]]
local clock = redis.call('HMGET', KEYS[1], 'ms', 'seq', 'birth', 'lost')
local last_id = clock[1] and string.format('%.0f-%.0f', tonumber(clock[1]), tonumber(clock[2])) or ''
local rings, after, horizon, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local answer = { last_id, clock[3] or '', clock[4] or '', last_id }

-- after how many bytes no further topic is begun with
local MOST_BYTES = 1048576

-- up to here every topic's last id was looked at
local ms, seq = string.match(after, '^(%d+)-(%d+)$')
ms, seq = tonumber(ms), tonumber(seq)

local function isAfter(id_ms, id_seq, ms, seq) return id_ms > ms or (id_ms == ms and id_seq > seq) end

local after_ms, after_seq = ms, seq
local function read(topic)
  local entry = redis.call('XREVRANGE', rings .. topic, '+', horizon, 'COUNT', 1)[1]
  if not entry then return 0 end
  local id_ms, id_seq = string.match(entry[1], '^(%d+)-(%d+)$')
  id_ms, id_seq = tonumber(id_ms), tonumber(id_seq)
  if not isAfter(id_ms, id_seq, after_ms, after_seq) then return 0 end
  if isAfter(id_ms, id_seq, ms, seq) then ms, seq = id_ms, id_seq end
  answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = topic, '', { entry }
  return #entry[2][4]
end

-- all topics whose last ids have this ms: in the index they are in no order
local function readAll(score)
  local bytes = 0
  for _, topic in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], score, score)) do bytes = bytes + read(topic) end
  return bytes
end

if ARGV[5] ~= '' then
  read(ARGV[5])
  return answer
end

local bytes, from = 0, string.match(after, '^%d+')
while clock[1] do
  local next = redis.call('ZRANGEBYSCORE', KEYS[2], from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if not next[1] then break end
  if #answer >= 4 + 3 * limit or bytes >= MOST_BYTES then
    answer[4] = string.format('%.0f-%.0f', ms, seq)
    break
  end
  bytes = bytes + readAll(next[2])
  from = '(' .. next[2]
end
return answer
