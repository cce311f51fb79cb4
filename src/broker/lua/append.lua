--[[
  Stores events of one shard and announces them, all in one step: gives the ids, keeps the rings, the index and the
  states, and remembers the idempotency keys.

  KEYS[1]       clock: a hash of ms and seq (the id given last), birth and lost
  KEYS[2...]    for each event: ring (stream), index (sorted set: topic by the ms of its last id), last (hash: last id
                by topic), key (string; the ring where there is none), state (hash: value, version), states (set: topics
                with a state)
  ARGV[1]       what every channel's name begins with
  ARGV[2]       PUBLISH or SPUBLISH
  ARGV[3]       ms of this server's clock after which nothing may be stored any more
  ARGV[4]       ms that a new birth must lie after
  ARGV[5]       how many events a ring holds
  ARGV[6]       ms for which a ring is kept
  ARGV[7]       ms for which a key is remembered
  ARGV[8...]    for each event: topic, family (its wildcard), type, data, encoding, ms of its own life or 0,
                print ('' without a key), state ('' none, 'set', 'delete'), version ('' none, '*' any), value,
                how many events from this one on are stored together or not at all (0: it belongs to one before)

  Returns       {'late'}, or {'ok', ms of this server's clock, outcome, id, outcome, id, ...};
                outcome: 'stored', 'replayed', 'key reused', 'conflict', 'not stored'; id is '' for the last three
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[3]) then return { 'late' } end

local function text(ms, seq) return string.format('%.0f-%.0f', ms, seq) end

local clock = redis.call('HMGET', KEYS[1], 'ms', 'seq', 'birth')
local ms, seq = tonumber(clock[1]), tonumber(clock[2])
if not clock[3] then
  ms, seq = math.max(now, tonumber(ARGV[4]) + 1), 0
  redis.call('HSET', KEYS[1], 'birth', text(ms, seq))
end

local prefix, publish = ARGV[1], ARGV[2]
local size, life = ARGV[5], tonumber(ARGV[6])
local answer = { 'ok', text(now, 0) }

-- what keeps an event from being stored; nil when nothing does
local function check(k, a)
  local print, change, version = ARGV[a + 6], ARGV[a + 7], ARGV[a + 8]
  local found = print ~= '' and redis.call('GET', KEYS[k + 3])
  if found then
    local id, before = string.match(found, '^(%S+) (.*)$')
    if before == print then return { 'replayed', id } end
    return { 'key reused', '' }
  end
  if change == '' or version == '*' then return nil end
  if (redis.call('HGET', KEYS[k + 4], 'version') or '') ~= version then return { 'conflict', '' } end
end

local function store(k, a)
  local ring, index, last, key, state, states = unpack(KEYS, k, k + 5)
  local topic, family, type, data, encoding, own, print, change, _, value = unpack(ARGV, a, a + 9)

  if now > ms then ms, seq = now, 0 else seq = seq + 1 end
  local id = text(ms, seq)
  local prev = redis.call('HGET', last, topic) or '-'
  local expires = own == '0' and '-' or string.format('%.0f', now + own)
  local head = table.concat({ prev, expires, encoding, type }, ' ')
  redis.call('XADD', ring, 'MAXLEN', size, id, 'h', head, 'd', data)
  redis.call('PEXPIRE', ring, life)
  redis.call('HSET', last, topic, id)
  redis.call('PEXPIRE', last, life)
  redis.call('ZADD', index, ms, topic)
  redis.call('PEXPIRE', index, life)
  -- topics that nobody's cursor can be young enough to ask about, a few at a time
  local old = redis.call('ZRANGEBYSCORE', index, '-inf', now - life, 'LIMIT', 0, 10)
  if #old > 0 then
    redis.call('ZREM', index, unpack(old))
    redis.call('HDEL', last, unpack(old))
  end
  if change == 'set' then
    redis.call('HSET', state, 'value', value, 'version', id)
    redis.call('SADD', states, topic)
  elseif change == 'delete' then
    redis.call('DEL', state)
    redis.call('SREM', states, topic)
  end
  if print ~= '' then redis.call('SET', key, id .. ' ' .. print, 'PX', ARGV[7]) end

  local message = table.concat({ id, head, topic }, ' ') .. '\n' .. data
  redis.call(publish, prefix .. 't:' .. topic, message)
  redis.call(publish, prefix .. 'w:' .. family, message)
  return { 'stored', id }
end

local k, a = 2, 8
while a <= #ARGV do
  local together = tonumber(ARGV[a + 10])
  local checked, refused = {}, false
  for i = 0, together - 1 do
    checked[i] = check(k + i * 6, a + i * 11)
    if checked[i] and checked[i][2] == '' then refused = true end
  end
  for i = 0, together - 1 do
    local outcome = checked[i] or (refused and { 'not stored', '' }) or store(k + i * 6, a + i * 11)
    answer[#answer + 1] = outcome[1]
    answer[#answer + 1] = outcome[2]
  end
  k, a = k + together * 6, a + together * 11
end
redis.call('HSET', KEYS[1], 'ms', ms, 'seq', seq)
return answer
