--[[
  Stores events of one shard and announces them, all in one step: gives the ids, keeps the rings, the orders, the index
  and the states, and remembers the idempotency keys.

  It reads and checks everything before its first write: what Redis has written stays written, whatever fails after it.
  What is wrong with one event (a key of Redis that somebody else has made something else of) fails that event's append
  and no other.

  KEYS, and what comes before this script: clock.lua. The other keys are named after the events and begin as the clock
             does, with the shard's hash tag, so that they are in its slot:
             ring:<topic> (stream), last:<wildcard> (hash: last id by topic; under '': after which position the order has
             every event), index:<wildcard> (sorted set: topic by the ms of its last id), order:<wildcard> (stream: topic
             by id of its events), key:<hash of key>, kept:<hash of key> (string), state:<topic> (hash: value, version),
             states:<wildcard> (set: topics with a state), ended:<wildcard> (hash: id of its end by topic; it counts for
             as long as the ring is there); the wildcard of a topic is its wildcard
  ARGV[1]    how to announce (see clock.lua)
  ARGV[2]    ms of this server's clock after which nothing may be stored any more
  ARGV[3]    ms that a new birth must lie after
  ARGV[4]    how many events a ring holds
  ARGV[5]    ms for which a ring is kept, and for which the other keys of a family are: as long as any ring
  ARGV[6]    ms for which a key is remembered
  ARGV[7]    how many of the events are stored together or not at all, one number after the other
  ARGV[8]    the birth of the store that the instance knows
  ARGV[9...] ms and seq of each checkpoint; if one shows a fork, the loss is declared before anything is stored
  then       for each event: topic, "encoding type", data, options, value. The options are '' for none, else
             "ttl key print cursor change version ring most ring_ms state_ms", '-' for each that is missing: ttl (ms), hash
             of the key, print (what tells events under one key apart), cursor (what is kept with the key, and told again),
             change ('set' or 'delete' its state), version ('none': none yet), and what holds for its topic instead of what
             holds for all: how many events its ring holds, how many the largest ring of its family does, ms for which the
             ring is kept, ms for which its state is (0: for ever). The value is that of the state. A ring of 0 events is
             that of an ephemeral event: it gets an id and is announced, and nothing but its key is kept

  Returns    {'late', this server's clock} and has stored nothing, or {'ok', this server's clock, outcome, id, outcome,
             id, ...}; the clock is `<ms>-0`;
             outcome: 'stored', 'replayed', 'key reused', 'conflict', 'ended', 'not stored', 'failed'; id is what Redis
             says for 'failed', and '' for the four before it; of an event with a cursor "id cursor", as they were kept;
             of an ephemeral one "id cursor live", '-' for a cursor that is missing
]]
if now > tonumber(ARGV[2]) then return { 'late', text(now, 0) } end

-- how many arguments one command gets at most: Lua can't pass more than 8,000
local SLICE = 2000
-- how many entries an order has at most, besides those that it gets until it is trimmed again
local MAX_ORDER = 1000000

local how, ring_size = ARGV[1], tonumber(ARGV[4])
local ring_ttl, family_ttl = string.match(ARGV[5], '^(%d+) (%d+)$')
ring_ttl, family_ttl = tonumber(ring_ttl), tonumber(family_ttl)
local answer = { 'ok', text(now, 0) }

-- --- reading and checking ---

-- what the store has, and what was stored since in this call: {id and cursor, print} by the hash of a key, versions by topic
local used, versions = {}, {}
-- by wildcard: {last ids by topic, as they were; the same, of what was stored in this call}
local families, written = {}, {}
-- whether any topic of a wildcard may have ended, and whether a topic has, as of now
local may_have_ended, ended = {}, {}

-- Keys with a cursor are called otherwise: an older version could not read them.
local function nameOfKey(item) return prefix .. (item.cursor and 'kept:' or 'key:') .. item.key end

local function hasEnded(topic, wildcard)
  local ends = prefix .. 'ended:' .. wildcard
  if may_have_ended[wildcard] == nil then may_have_ended[wildcard] = redis.call('HLEN', ends) > 0 end
  return may_have_ended[wildcard] and redis.call('HGET', ends, topic)
    and redis.call('XLEN', prefix .. 'ring:' .. topic) > 0
end

local function read(item)
  local topic, key, wildcard = item.topic, item.key, item.wildcard
  if key and used[key] == nil then
    local found = redis.call('GET', nameOfKey(item))
    local id, print, cursor = string.match(found or '', '^(%S+) (%S+)(.*)$')
    used[key] = id and { id .. cursor, print } or false
  end
  if item.change and item.version and not versions[topic] then
    versions[topic] = redis.call('HGET', prefix .. 'state:' .. topic, 'version') or 'none'
  end
  if ended[topic] == nil then ended[topic] = hasEnded(topic, wildcard) end
  if not families[wildcard] then families[wildcard] = {} end
  if families[wildcard][topic] == nil then
    -- false: it has none, and this call brings none
    families[wildcard][topic] = redis.call('HGET', prefix .. 'last:' .. wildcard, topic) or (item.ring ~= '0' and '-')
  end
end

local OPTIONS = {
  'ttl', 'key', 'print', 'cursor', 'change', 'version', 'ring', 'most', 'ring_ms', 'state_ms'
}

local function itemAt(a)
  local item = { topic = ARGV[a], kind = ARGV[a + 1], data = ARGV[a + 2], wildcard = wildcardOf(ARGV[a]) }
  if ARGV[a + 3] ~= '' then
    local next = string.gmatch(ARGV[a + 3], '%S+')
    for _, name in ipairs(OPTIONS) do
      local value = next()
      if value ~= '-' then item[name] = value end
    end
    item.value = ARGV[a + 4]
  end
  return item
end

local function reasonOf(failure)
  return type(failure) == 'table' and failure.err or tostring(failure)
end

local groups, size = {}, 0
local a = 7 + 2 * #KEYS
for together in string.gmatch(ARGV[7], '%d+') do
  local group = {}
  for i = 1, tonumber(together) do
    group[i] = itemAt(a)
    a = a + 5
    local is_read, failure = pcall(read, group[i])
    if not is_read then group.failure = reasonOf(failure) end
  end
  groups[#groups + 1] = group
  size = size + #group
end

-- what keeps an event from being stored; nil when nothing does
local function check(item)
  local before = item.key and used[item.key]
  if before then
    if before[2] == item.print then return { 'replayed', before[1] } end
    return { 'key reused', '' }
  end
  if ended[item.topic] then return { 'ended', '' } end
  if item.change and item.version and versions[item.topic] ~= item.version then return { 'conflict', '' } end
end

-- --- writing ---

local function nextId()
  if now > ms then ms, seq = now, 0 else seq = seq + 1 end
  return text(ms, seq)
end

-- the id given last before this call
local before_this = given or '0-0'
if #groups == 0 then mayWriteWhenFull() end

if not birth then
  ms, seq = math.max(now, tonumber(ARGV[3]) + 1), 0
  redis.call('HSET', KEYS[1], 'birth', text(ms, seq))
elseif birth == ARGV[8] and findFork(9) then
  declareLost(how, nextId())
end

-- Before the first event: whatever comes of this call, no later one gives the ids that it may give.
local has_begun = false
local function beginOnce()
  if has_begun then return end
  has_begun = true
  local first_ms, first_seq = ms, seq
  if now > ms then first_ms, first_seq = now, 0 end
  saveClock(first_ms, first_seq + size)
end

-- How many topics a family has, with those that this call brings.
local function topicsOf(wildcard)
  local last = prefix .. 'last:' .. wildcard
  local count = redis.call('HLEN', last) - (redis.call('HGET', last, '') and 1 or 0)
  for _, id in pairs(families[wildcard]) do if id == '-' then count = count + 1 end end
  return count
end

-- The key of a family's order; false where the family has one topic, whose ring is order enough. A new order has every
-- event of its family, unless the family had events before: then it has those that come from now on.
local orders = {}
local function orderOf(wildcard)
  if orders[wildcard] ~= nil then return orders[wildcard] end
  local order, last = prefix .. 'order:' .. wildcard, prefix .. 'last:' .. wildcard
  local is_new = redis.call('XLEN', order) == 0
  orders[wildcard] = (not is_new or topicsOf(wildcard) > 1) and order
  if is_new and orders[wildcard] then
    redis.call('HSET', last, '', redis.call('HLEN', last) == 0 and '0-0' or before_this)
  end
  return orders[wildcard]
end

-- What stands behind an id, with its key and in the answer. That an event is ephemeral must be known later as well: it is
-- no checkpoint, for it would never be found.
local function suffixOf(item)
  if item.ring == '0' then return ' ' .. (item.cursor or '-') .. ' live' end
  return item.cursor and ' ' .. item.cursor or ''
end

-- what holds for the topics of this call, where a rule says so: ms for which their rings are kept; by wildcard, how many
-- events their largest rings hold, and whether a state may go by itself
local ring_ms, largest, is_mortal = {}, {}, {}

local function noteRule(item)
  if not item.ring then return end
  ring_ms[item.topic], largest[item.wildcard] = item.ring_ms, tonumber(item.most)
  if item.state_ms == '0' then return end
  is_mortal[item.wildcard] = true
  redis.call('PEXPIRE', prefix .. 'state:' .. item.topic, item.state_ms)
end

local function change(item, id)
  local state, states = prefix .. 'state:' .. item.topic, prefix .. 'states:' .. item.wildcard
  if item.change == 'set' then
    -- by another rule it might have gone by itself
    if item.state_ms == '0' then redis.call('DEL', state) end
    redis.call('HSET', state, 'value', item.value, 'version', id)
    redis.call('SADD', states, item.topic)
  elseif item.change == 'delete' then
    redis.call('DEL', state)
    redis.call('SREM', states, item.topic)
  end
  if item.change then versions[item.topic] = item.change == 'set' and id or 'none' end
end

local function useKey(item, id)
  if not item.key then return end
  redis.call('SET', nameOfKey(item), id .. ' ' .. item.print .. suffixOf(item), 'PX', ARGV[6])
  used[item.key] = { id .. suffixOf(item), item.print }
end

-- What an event says besides its id and its data; one that runs out at 0 is ephemeral.
local function headOf(item, expires)
  return (families[item.wildcard][item.topic] or '-') .. ' ' .. expires .. ' ' .. item.kind
end

local function announceEvent(item, id, head)
  local message = id .. ' ' .. head .. ' ' .. item.topic .. '\n' .. item.data
  announce(how, 't:' .. item.topic, message)
  announce(how, 'w:' .. item.wildcard, message)
  return { 'stored', id .. suffixOf(item) }
end

local function handOver(item)
  local id = nextId()
  useKey(item, id)
  return announceEvent(item, id, headOf(item, '0'))
end

-- Notes that a topic has ended, or begins anew. What was noted before it ran out is gone with its ring at the latest.
local function noteEnd(item, id)
  local topic, wildcard = item.topic, item.wildcard
  local ends = prefix .. 'ended:' .. wildcard
  ended[topic] = string.sub(item.kind, 3) == 'end'
  if ended[topic] then
    may_have_ended[wildcard] = true
    redis.call('HSET', ends, topic, id)
    redis.call('PEXPIRE', ends, family_ttl)
  elseif may_have_ended[wildcard] then
    redis.call('HDEL', ends, topic)
  end
end

local function store(item)
  local topic, wildcard = item.topic, item.wildcard
  local order, id = orderOf(wildcard), nextId()
  local head = headOf(item, item.ttl and string.format('%.0f', now + item.ttl) or '-')
  redis.call('XADD', prefix .. 'ring:' .. topic, 'MAXLEN', item.ring or ring_size, id, 'h', head, 'd', item.data)
  families[wildcard][topic] = id
  written[wildcard] = written[wildcard] or {}
  written[wildcard][topic] = id
  if order then redis.call('XADD', order, id, 't', topic) end
  noteEnd(item, id)
  change(item, id)
  useKey(item, id)
  noteRule(item)
  return announceEvent(item, id, head)
end

local function tryToStore(item)
  beginOnce()
  local is_stored, outcome = pcall(item.ring == '0' and handOver or store, item)
  return is_stored and outcome or { 'failed', reasonOf(outcome) }
end

for _, group in ipairs(groups) do
  local checked, refused = {}, group.failure and { 'failed', group.failure }
  for i, item in ipairs(group) do
    checked[i] = not group.failure and check(item)
    if checked[i] and checked[i][2] == '' then refused = { 'not stored', '' } end
  end
  for i, item in ipairs(group) do
    local outcome = checked[i] or refused or tryToStore(item)
    answer[#answer + 1] = outcome[1]
    answer[#answer + 1] = outcome[2]
  end
end

local function inSlices(command, key, list)
  for i = 1, #list, SLICE do
    redis.call(command, key, unpack(list, i, math.min(i + SLICE - 1, #list)))
  end
end

-- An order of one topic needs no more entries than its ring; one of many is not to cost more than its rings do.
local function trimOrder(wildcard)
  local order, last = prefix .. 'order:' .. wildcard, prefix .. 'last:' .. wildcard
  local most = math.min((largest[wildcard] or ring_size) * redis.call('ZCARD', prefix .. 'index:' .. wildcard), MAX_ORDER)
  -- whole nodes go at a time, and only those too old for any cursor or too many
  redis.call('XTRIM', order, 'MINID', '~', string.format('%.0f', now - family_ttl))
  if redis.call('XLEN', order) <= most + 200 or redis.call('XTRIM', order, 'MAXLEN', '~', most) == 0 then return end
  local first = redis.call('XRANGE', order, '-', '+', 'COUNT', 1)[1]
  if first then redis.call('HSET', last, '', first[1]) end
end

-- A state that has gone by itself is still among those of its family.
local function forgetStates(wildcard, topics)
  for _, topic in ipairs(topics) do
    if not redis.call('HGET', prefix .. 'state:' .. topic, 'version') then
      redis.call('SREM', prefix .. 'states:' .. wildcard, topic)
    end
  end
end

-- What is written once for each family, however many events it has got.
local function finish(wildcard, lasts)
  local last, index = prefix .. 'last:' .. wildcard, prefix .. 'index:' .. wildcard
  local ids, scores = {}, {}
  for topic, id in pairs(lasts) do
    ids[#ids + 1], ids[#ids + 2] = topic, id
    scores[#scores + 1], scores[#scores + 2] = string.match(id, '^%d+'), topic
    redis.call('PEXPIRE', prefix .. 'ring:' .. topic, ring_ms[topic] or ring_ttl)
  end
  inSlices('HSET', last, ids)
  inSlices('ZADD', index, scores)
  -- topics that nobody's cursor can be young enough to ask about, a few at a time
  local old = redis.call('ZRANGEBYSCORE', index, '-inf', now - family_ttl, 'LIMIT', 0, 10 + #ids)
  inSlices('ZREM', index, old)
  inSlices('HDEL', last, old)
  if is_mortal[wildcard] then forgetStates(wildcard, old) end
  if may_have_ended[wildcard] then inSlices('HDEL', prefix .. 'ended:' .. wildcard, old) end
  if orders[wildcard] then trimOrder(wildcard) end
  for _, name in ipairs({ 'last:', 'index:', 'order:' }) do redis.call('PEXPIRE', prefix .. name .. wildcard, family_ttl) end
end

for wildcard, lasts in pairs(written) do
  if next(lasts) then finish(wildcard, lasts) end
end
if text(ms, seq) ~= given then saveClock(ms, seq) end
return answer
