--[[
  Renews an instance's lease, makes and unmakes its members, and lets the members of instances go whose lease has run
  out; announces each change once. All in one step.

  KEYS[1]    clock: a hash of ms and seq (the id given last), birth and lost. The other keys begin as it does, with the
             shard's hash tag: members:<topic> (hash: "instance JSON" by the member's id), present:<family> (set: topics
             with members), joined:<instance> (set: "id topic" of its members), instances (sorted set: instance by the ms
             at which its lease runs out)
  ARGV[1]    what every key and channel begins with
  ARGV[2]    PUBLISH or SPUBLISH
  ARGV[3]    the instance
  ARGV[4]    ms for which its lease holds; 0 when it has no members
  ARGV[5]    ms for which a key is kept
  ARGV[6]    how many members of gone instances are let go at most
  ARGV[7...] for each change: topic, the member's id, and JSON of what it is; '' when it leaves

  Returns    {} where the store was emptied and has no new life yet; else {the id given last, birth, '1' if it held a
             lease before, '1' if there are more to let go}
]]
local clock = redis.call('HMGET', KEYS[1], 'ms', 'seq', 'birth')
if not clock[3] then return {} end
local ms, seq, given = tonumber(clock[1]), tonumber(clock[2]), false
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local prefix, publish, life = ARGV[1], ARGV[2], tonumber(ARGV[5])
local leases = prefix .. 'instances'

local function familyOf(topic) return (string.match(topic, '^(.*/)[^/]*$') or '') .. '*' end

-- a change has an id of its own, so that whoever reads the members knows which changes they have in them
local function tell(what, topic, id, value)
  if now > ms then ms, seq = now, 0 else seq = seq + 1 end
  given = true
  local message = what .. string.format(' %.0f-%.0f ', ms, seq) .. id .. ' ' .. topic .. '\n' .. value
  redis.call(publish, prefix .. 'm:' .. topic, message)
  redis.call(publish, prefix .. 'm:' .. familyOf(topic), message)
end

local function put(topic, id, value)
  local members, present = prefix .. 'members:' .. topic, prefix .. 'present:' .. familyOf(topic)
  local joined = prefix .. 'joined:' .. ARGV[3]
  local held = redis.call('HGET', members, id)
  redis.call('HSET', members, id, ARGV[3] .. ' ' .. value)
  redis.call('SADD', present, topic)
  redis.call('SADD', joined, id .. ' ' .. topic)
  for _, key in ipairs({ members, present, joined }) do redis.call('PEXPIRE', key, life) end
  if held ~= ARGV[3] .. ' ' .. value then tell('+', topic, id, value) end
end

local function remove(topic, id)
  local members = prefix .. 'members:' .. topic
  if redis.call('HDEL', members, id) == 0 then return end
  if redis.call('HLEN', members) == 0 then redis.call('SREM', prefix .. 'present:' .. familyOf(topic), topic) end
  tell('-', topic, id, '')
end

-- one that has run out counts as none, also when nobody has come to let its members go
local held = tonumber(redis.call('ZSCORE', leases, ARGV[3]) or 0) > now and '1' or '0'
if ARGV[4] ~= '0' then
  redis.call('ZADD', leases, string.format('%.0f', now + tonumber(ARGV[4])), ARGV[3])
  redis.call('PEXPIRE', leases, life)
end

for a = 7, #ARGV, 3 do
  if ARGV[a + 2] ~= '' then
    put(ARGV[a], ARGV[a + 1], ARGV[a + 2])
  else
    redis.call('SREM', prefix .. 'joined:' .. ARGV[3], ARGV[a + 1] .. ' ' .. ARGV[a])
    remove(ARGV[a], ARGV[a + 1])
  end
end

local left = tonumber(ARGV[6])
local most = left
for _, instance in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', string.format('%.0f', now), 'LIMIT', 0, left)) do
  local gone = left > 0 and redis.call('SPOP', prefix .. 'joined:' .. instance, left) or {}
  for _, member in ipairs(gone) do
    local id, topic = string.match(member, '^(%S+) (.*)$')
    remove(topic, id)
  end
  if #gone < left then redis.call('ZREM', leases, instance) end
  left = left - #gone
end

if given then redis.call('HSET', KEYS[1], 'ms', ms, 'seq', seq) end
return { string.format('%.0f-%.0f', ms, seq), clock[3], held, most > 0 and left == 0 and '1' or '0' }
