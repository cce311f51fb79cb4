--[[
  Renews an instance's lease, makes and unmakes its members, and removes the members of instances whose lease has expired.
  Announces each change once. All of it is one step.

  A lease that has expired says nothing when the store was away: then nobody could renew it. So after that nobody is
  removed for a while. The store knows it better than any instance, which may have lost no more than its own connection.

  KEYS[1]    clock: a hash of ms and seq (the id given last), birth, lost and returned
  ARGV[1]    what every key begins with; it has the shard's hash tag
  ARGV[2]    how to announce: PUBLISH or SPUBLISH, and the name of a database that is not 0 (`PUBLISH @3`)
  ARGV[3]    the instance
  ARGV[4]    for how many ms its lease holds; 0 when it has no members
  ARGV[5]    for how many ms a key is kept
  ARGV[6]    how many members of dead instances are removed at most
  ARGV[7]    for how many ms nobody is removed after the store was away
  ARGV[8...] for each change: topic, the member's id, and JSON of what it is; '' when it leaves

  The other keys begin with ARGV[1]:
    members:<topic>     hash: "instance JSON" by the member's id
    present:<wildcard>  set: the topics that it covers and that have members
    joined:<instance>   set: "id topic" of its members
    instances           sorted set: instances by the ms at which their lease expires

  Returns    {} where the store was emptied and has no new life yet; else {the id given last, birth, '1' if the instance
             had a lease before, '1' if members of dead instances may be left}
]]
local clock = redis.call('HMGET', KEYS[1], 'ms', 'seq', 'birth', 'ordered', 'returned')
if not clock[3] then return {} end
local ms, seq, has_announced = tonumber(clock[1]), tonumber(clock[2]), false
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local prefix, key_ttl = ARGV[1], tonumber(ARGV[5])
local publish, database = string.match(ARGV[2], '^(%u+) ?(.*)$')
local channels = string.gsub(prefix, ':$', database .. ':')
local leases = prefix .. 'instances'

local function wildcardOf(topic) return (string.match(topic, '^(.*/)[^/]*$') or '') .. '*' end

-- each change gets an id of its own: so whoever reads the members knows which changes are in them
local function announce(what, topic, id, value)
  if now > ms then ms, seq = now, 0 else seq = seq + 1 end
  has_announced = true
  local message = what .. string.format(' %.0f-%.0f ', ms, seq) .. id .. ' ' .. topic .. '\n' .. value
  redis.call(publish, channels .. 'm:' .. topic, message)
  redis.call(publish, channels .. 'm:' .. wildcardOf(topic), message)
end

local function put(topic, id, value)
  local members, present = prefix .. 'members:' .. topic, prefix .. 'present:' .. wildcardOf(topic)
  local joined = prefix .. 'joined:' .. ARGV[3]
  local before = redis.call('HGET', members, id)
  redis.call('HSET', members, id, ARGV[3] .. ' ' .. value)
  redis.call('SADD', present, topic)
  redis.call('SADD', joined, id .. ' ' .. topic)
  for _, key in ipairs({ members, present, joined }) do redis.call('PEXPIRE', key, key_ttl) end
  if before ~= ARGV[3] .. ' ' .. value then announce('+', topic, id, value) end
end

local function remove(topic, id)
  local members = prefix .. 'members:' .. topic
  if redis.call('HDEL', members, id) == 0 then return end
  if redis.call('HLEN', members) == 0 then redis.call('SREM', prefix .. 'present:' .. wildcardOf(topic), topic) end
  announce('-', topic, id, '')
end

-- As in clock.lua: what was told by a tick or an append, if one came before this call.
local was_away = now - ms > 3000
local returned = was_away and now or tonumber(clock[5]) or 0
-- a clock that was set back says nothing
local is_returning = returned <= now and now < returned + tonumber(ARGV[7])

-- As in clock.lua: who renews a lease, leaves or puts back what is there takes no room, and may write also when the store
-- is full.
local takes_room = false
for a = 8, #ARGV, 3 do
  local is_there = ARGV[a + 2] == ''
    or redis.call('HGET', prefix .. 'members:' .. ARGV[a], ARGV[a + 1]) == ARGV[3] .. ' ' .. ARGV[a + 2]
  takes_room = takes_room or not is_there
end
if not takes_room then redis.call('HDEL', KEYS[1], 'none') end

-- a lease that has expired counts as none, also when nobody has removed the members yet
local had_lease = tonumber(redis.call('ZSCORE', leases, ARGV[3]) or 0) > now and '1' or '0'
if ARGV[4] ~= '0' then
  redis.call('ZADD', leases, string.format('%.0f', now + tonumber(ARGV[4])), ARGV[3])
  redis.call('PEXPIRE', leases, key_ttl)
end

for a = 8, #ARGV, 3 do
  if ARGV[a + 2] ~= '' then
    put(ARGV[a], ARGV[a + 1], ARGV[a + 2])
  else
    redis.call('SREM', prefix .. 'joined:' .. ARGV[3], ARGV[a + 1] .. ' ' .. ARGV[a])
    remove(ARGV[a], ARGV[a + 1])
  end
end

if was_away then redis.call('HSET', KEYS[1], 'returned', now) end

local most = is_returning and 0 or tonumber(ARGV[6])
local left = most
local dead = redis.call('ZRANGEBYSCORE', leases, '-inf', string.format('%.0f', now), 'LIMIT', 0, most)
for _, instance in ipairs(dead) do
  local gone = left > 0 and redis.call('SPOP', prefix .. 'joined:' .. instance, left) or {}
  for _, member in ipairs(gone) do
    local id, topic = string.match(member, '^(%S+) (.*)$')
    remove(topic, id)
  end
  -- the instance is forgotten once none of its members is left; until then the next call finds it here
  if #gone < left then redis.call('ZREM', leases, instance) end
  left = left - #gone
end

if has_announced then
  -- as in clock.lua: what was given by an older version before this is in no order
  local given = string.format('%.0f-%.0f', tonumber(clock[1]), tonumber(clock[2]))
  if given ~= clock[4] then redis.call('HSET', KEYS[1], 'unordered', given) end
  redis.call('HSET', KEYS[1], 'ms', ms, 'seq', seq, 'ordered', string.format('%.0f-%.0f', ms, seq))
end
return { string.format('%.0f-%.0f', ms, seq), clock[3], had_lease, most > 0 and left == 0 and '1' or '0' }
