--[[
  Reads a page of a family: what came after a position on all topics of one wildcard in one shard. It goes by the order of
  their events, and so looks at as many entries as the page has, however many topics there are.

  KEYS[1]    clock: a hash of ms and seq (the id given last), birth, lost, ordered and unordered (see clock.lua)
  KEYS[2]    last: a hash of the last id by topic; under '': after which position the order has every event
  KEYS[3]    order: a stream of topics by the ids of their events
  ARGV[1]    what the key of a ring begins with; it has the shard's hash tag
  ARGV[2]    the position to start after
  ARGV[3]    at most so many events

  Returns    {last id given or '', birth or '', lost or '', complete, then for each topic of the page: topic, reached, its
             entries}; complete: the page has all events up to here, but those that are gone; '' where the order can't
             tell; reached: for a topic without entries the last of its events that is gone, else ''
]]
local clock = redis.call('HMGET', KEYS[1], 'ms', 'seq', 'birth', 'lost', 'ordered', 'unordered')
local last_id = clock[1] and string.format('%.0f-%.0f', tonumber(clock[1]), tonumber(clock[2])) or ''
local rings, after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local answer = { last_id, clock[3] or '', clock[4] or '', '' }

local function reaches(position, id)
  local ms, seq = string.match(position, '^(%d+)-(%d+)$')
  local id_ms, id_seq = string.match(id, '^(%d+)-(%d+)$')
  ms, seq, id_ms, id_seq = tonumber(ms), tonumber(seq), tonumber(id_ms), tonumber(id_seq)
  return ms > id_ms or (ms == id_ms and seq >= id_seq)
end

-- an instance of an older version has given ids, and what it stored is in no order
if not clock[1] or clock[5] ~= last_id or (clock[6] and not reaches(after, clock[6])) then return answer end
local from = redis.call('HGET', KEYS[2], '')
if not from and redis.call('HLEN', KEYS[2]) == 0 then
  answer[4] = last_id
  return answer
end
if not from or not reaches(after, from) then return answer end
local entries = redis.call('XRANGE', KEYS[3], '(' .. after, '+', 'COUNT', limit)
-- it may have been evicted
if #entries == 0 and redis.call('XLEN', KEYS[3]) == 0 then return answer end
answer[4] = #entries == limit and entries[limit][1] or last_id

-- the topics of the page: the first and the last of their events, and how many there are
local topics, parts = {}, {}
for _, entry in ipairs(entries) do
  local id, topic = entry[1], entry[2][2]
  local part = parts[topic]
  if not part then
    part = { first = id, count = 0 }
    parts[topic], topics[#topics + 1] = part, topic
  end
  part.last, part.count = id, part.count + 1
end

-- The last event of a topic that is gone: the ring's first one follows on it, or all are gone.
local function goneTo(topic)
  local first = redis.call('XRANGE', rings .. topic, '-', '+', 'COUNT', 1)[1]
  return first and string.match(first[2][2], '^%S+') or redis.call('HGET', KEYS[2], topic) or ''
end

for _, topic in ipairs(topics) do
  local part = parts[topic]
  local found = redis.call('XRANGE', rings .. topic, part.first, part.last, 'COUNT', part.count)
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3] = topic, #found == 0 and goneTo(topic) or '', found
end
return answer
