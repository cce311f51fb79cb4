--[[
  Says what a store is, as far as we depend on it: its version, whether it may evict keys, whether it takes writes and
  exclusive ranges. Declares a loss where it has evicted keys since the last check, whoever made that one.

  KEYS[1], and what comes before this script: clock.lua. The clock has besides evicted: the server's run_id and how many
             keys it had evicted at the last check
  ARGV[1]    how to announce (see clock.lua)

  Returns    {version, maxmemory, maxmemory-policy ('' for each that the server doesn't tell), what it says instead of
             taking a write ('' where it takes it), what is wrong with its exclusive ranges ('' when nothing is)}
]]
local probe = prefix .. 'probe'

-- an ACL may forbid to ask
local function info(section)
  local answer = redis.pcall('INFO', section)
  return type(answer) == 'string' and answer or ''
end
local function field(text, name) return string.match(text, name .. ':([^\r\n]+)') or '' end

-- before version 5 a script can't write once it has asked for the time: what it says of that would hide how old it is
local server = info('server')
local version = field(server, 'redis_version')
if tonumber(string.match(version, '^%d+') or 5) < 5 then return { version, '', '', '', '' } end

local function errorOf(answer) return type(answer) == 'table' and answer.err or '' end

-- first: of a script that has written, a full store takes more
local refusal = errorOf(redis.pcall('XADD', probe, '1-1', 'd', ''))
if refusal == '' then redis.call('XADD', probe, '1-2', 'd', '') end
mayWriteWhenFull()

local after = redis.pcall('XRANGE', probe, '(1-1', '+')
local range_failure = errorOf(after)
if range_failure == '' and refusal == '' and (#after ~= 1 or after[1][1] ~= '1-2') then
  range_failure = 'it answers with what lies outside'
end
redis.call('DEL', probe)

local memory = info('memory')
local run, evicted = field(server, 'run_id'), tonumber(field(info('stats'), 'evicted_keys'))

-- Any key may have been among those that were evicted. A server that was started again counts from 0.
local function hasEvicted()
  local seen_run, seen = string.match(redis.call('HGET', KEYS[1], 'evicted') or '', '^(%S*) (%d+)$')
  return evicted > (seen_run == run and tonumber(seen) or 0)
end
if evicted then
  if birth and hasEvicted() then
    if now > ms then ms, seq = now, 0 end
    saveClock(ms, seq)
    declareLost(ARGV[1], text(ms, seq))
  end
  local seen = string.format('%s %.0f', run, evicted)
  if redis.call('HGET', KEYS[1], 'evicted') ~= seen then redis.call('HSET', KEYS[1], 'evicted', seen) end
end
return { version, field(memory, 'maxmemory'), field(memory, 'maxmemory_policy'), refusal, range_failure }
