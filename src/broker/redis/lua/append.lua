--[[
  Stores events of one shard and announces them, all in one step: gives the ids, keeps the rings, the index and the
  states, and remembers the idempotency keys.

  KEYS, and what comes before this script: clock.lua. The other keys are named after the events and begin as the clock
             does, with the shard's hash tag, so that they are in its slot:
             ring:<topic> (stream), last:<wildcard> (hash: last id by topic), index:<wildcard> (sorted set: topic by the ms
             of its last id), key:<key> (string), state:<topic> (hash: value, version), states:<wildcard> (set: topics
             with a state); the wildcard of a topic is its wildcard
  ARGV[1]    PUBLISH or SPUBLISH
  ARGV[2]    ms of this server's clock after which nothing may be stored any more
  ARGV[3]    ms that a new birth must lie after
  ARGV[4]    how many events a ring holds
  ARGV[5]    ms for which a ring is kept
  ARGV[6]    ms for which a key is remembered
  ARGV[7]    how many of the events are stored together or not at all, one number after the other
  ARGV[8]    the birth of the store that the instance knows
  ARGV[9...] ms and seq of each checkpoint; if one shows a fork, the loss is declared before anything is stored
  then       for each event: topic, "encoding type", data, and JSON of its options, '' for none: ttl (ms), key, print
             (what tells events under one key apart), change ('set' or 'delete' its state), version ('' none yet; any
             where it is missing), value

  Returns    {'late', this server's clock} and has stored nothing, or {'ok', this server's clock, outcome, id, outcome,
             id, ...}; the clock is `<ms>-0`;
             outcome: 'stored', 'replayed', 'key reused', 'conflict', 'not stored'; id is '' for the last three
]]
if now > tonumber(ARGV[2]) then return { 'late', text(now, 0) } end

local publish, ring_size, ring_ttl = ARGV[1], ARGV[4], tonumber(ARGV[5])
local answer = { 'ok', text(now, 0) }

local function nextId()
  if now > ms then ms, seq = now, 0 else seq = seq + 1 end
  return text(ms, seq)
end

if not birth then
  ms, seq = math.max(now, tonumber(ARGV[3]) + 1), 0
  redis.call('HSET', KEYS[1], 'birth', text(ms, seq))
elseif birth == ARGV[8] and findFork(9) then
  declareLost(publish, nextId())
end

-- what is written once for each topic and wildcard, however many events they get: last ids by wildcard and topic
local wildcards = {}

local function optionsAt(a)
  if ARGV[a + 3] == '' then return nil end
  return cjson.decode(ARGV[a + 3])
end

-- what keeps an event from being stored; nil when nothing does
local function check(topic, options)
  if not options then return nil end
  local found = options.key and redis.call('GET', prefix .. 'key:' .. options.key)
  if found then
    local id, before = string.match(found, '^(%S+) (.*)$')
    if before == options.print then return { 'replayed', id } end
    return { 'key reused', '' }
  end
  if not options.change or not options.version then return nil end
  local version = redis.call('HGET', prefix .. 'state:' .. topic, 'version') or ''
  if version ~= options.version then return { 'conflict', '' } end
end

local function change(topic, wildcard, id, options)
  local state, states = prefix .. 'state:' .. topic, prefix .. 'states:' .. wildcard
  if options.change == 'set' then
    redis.call('HSET', state, 'value', options.value, 'version', id)
    redis.call('SADD', states, topic)
  elseif options.change == 'delete' then
    redis.call('DEL', state)
    redis.call('SREM', states, topic)
  end
  if options.key then redis.call('SET', prefix .. 'key:' .. options.key, id .. ' ' .. options.print, 'PX', ARGV[6]) end
end

local function store(a, options)
  local topic, kind, data = ARGV[a], ARGV[a + 1], ARGV[a + 2]
  local wildcard = wildcardOf(topic)
  local lasts = wildcards[wildcard]
  if not lasts then
    lasts = {}
    wildcards[wildcard] = lasts
  end
  local id = nextId()
  local prev = lasts[topic] or redis.call('HGET', prefix .. 'last:' .. wildcard, topic) or '-'
  lasts[topic] = id
  local expires = options and options.ttl and string.format('%.0f', now + options.ttl) or '-'
  local head = prev .. ' ' .. expires .. ' ' .. kind
  redis.call('XADD', prefix .. 'ring:' .. topic, 'MAXLEN', ring_size, id, 'h', head, 'd', data)
  if options then change(topic, wildcard, id, options) end
  local message = id .. ' ' .. head .. ' ' .. topic .. '\n' .. data
  redis.call(publish, prefix .. 't:' .. topic, message)
  redis.call(publish, prefix .. 'w:' .. wildcard, message)
  return { 'stored', id }
end

local a = 7 + 2 * #KEYS
for together in string.gmatch(ARGV[7], '%d+') do
  together = tonumber(together)
  local checked, options, refused = {}, {}, false
  for i = 0, together - 1 do
    options[i] = optionsAt(a + i * 4)
    checked[i] = check(ARGV[a + i * 4], options[i])
    if checked[i] and checked[i][2] == '' then refused = true end
  end
  for i = 0, together - 1 do
    local outcome = checked[i] or (refused and { 'not stored', '' }) or store(a + i * 4, options[i])
    answer[#answer + 1] = outcome[1]
    answer[#answer + 1] = outcome[2]
  end
  a = a + together * 4
end

for wildcard, lasts in pairs(wildcards) do
  local last, index = prefix .. 'last:' .. wildcard, prefix .. 'index:' .. wildcard
  local ids, scores = {}, {}
  for topic, id in pairs(lasts) do
    ids[#ids + 1], ids[#ids + 2] = topic, id
    scores[#scores + 1], scores[#scores + 2] = string.match(id, '^%d+'), topic
    redis.call('PEXPIRE', prefix .. 'ring:' .. topic, ring_ttl)
  end
  redis.call('HSET', last, unpack(ids))
  redis.call('ZADD', index, unpack(scores))
  -- topics that nobody's cursor can be young enough to ask about, a few at a time
  local old = redis.call('ZRANGEBYSCORE', index, '-inf', now - ring_ttl, 'LIMIT', 0, 10 + #ids)
  if #old > 0 then
    redis.call('ZREM', index, unpack(old))
    redis.call('HDEL', last, unpack(old))
  end
  redis.call('PEXPIRE', last, ring_ttl)
  redis.call('PEXPIRE', index, ring_ttl)
end
redis.call('HSET', KEYS[1], 'ms', ms, 'seq', seq)
return answer
