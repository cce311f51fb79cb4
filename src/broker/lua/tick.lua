--[[
  Moves a shard's last id to now, and announces it to one instance: when it arrives there, all that was stored before
  has been handed over. Notices when the store has lost events that this instance has seen.

  KEYS[1]    clock: a hash of ms and seq (the id given last), birth and lost
  KEYS[2...] the rings of some events that it knows to have been stored, and that are to be looked up
  ARGV[1]    PUBLISH or SPUBLISH
  ARGV[2]    the instance's own channel
  ARGV[3]    number of the tick
  ARGV[4,5]  ms and seq of the position that the instance has reached: ids must grow past it
  ARGV[6,7]  ms and seq of the last event that it knows to have been stored
  ARGV[8]    the birth of the store that it knows
  ARGV[9...] ms and seq of each event that is to be looked up

  Returns    {last id, birth, lost ('' when nothing was), ms of this server's clock}
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function text(ms, seq) return string.format('%.0f-%.0f', ms, seq) end
local function before(ms, seq, ms2, seq2) return ms < ms2 or (ms == ms2 and seq < seq2) end

local function covers(lost, ms, seq)
  if not lost then return false end
  local lost_ms, lost_seq = string.match(lost, '^(%d+)-(%d+)$')
  return not before(tonumber(lost_ms), tonumber(lost_seq), ms, seq)
end

-- whether a ring that reaches back before an event doesn't hold it
local function lacks(ring, ms, seq)
  local first = redis.call('XRANGE', ring, '-', '+', 'COUNT', 1)[1]
  if first then
    local first_ms, first_seq = string.match(first[1], '^(%d+)-(%d+)$')
    if not before(tonumber(first_ms), tonumber(first_seq), ms, seq) then return false end
  end
  return #redis.call('XRANGE', ring, text(ms, seq), text(ms, seq)) == 0
end

local clock = redis.call('HMGET', KEYS[1], 'ms', 'seq', 'birth', 'lost')
local ms, seq = tonumber(clock[1]), tonumber(clock[2])
local birth, lost, forked = clock[3], clock[4], false
local floor_ms, floor_seq = tonumber(ARGV[4]), tonumber(ARGV[5])
local event_ms, event_seq = tonumber(ARGV[6]), tonumber(ARGV[7])

if not birth then
  ms, seq = math.max(now, floor_ms + 1), 0
  birth = text(ms, seq)
  redis.call('HSET', KEYS[1], 'birth', birth)
elseif before(ms, seq, event_ms, event_seq) then
  -- this life of the store gave that id and has forgotten it: a failover, or a restart from an older copy
  lost = text(event_ms, event_seq)
  redis.call('HSET', KEYS[1], 'lost', lost)
elseif birth == ARGV[8] then
  -- or it was given by a node that was no longer the one: what is here has come from the other since
  for i = 2, #KEYS do
    local known_ms, known_seq = tonumber(ARGV[2 * i + 5]), tonumber(ARGV[2 * i + 6])
    forked = forked or (not covers(lost, known_ms, known_seq) and lacks(KEYS[i], known_ms, known_seq))
  end
end
if before(ms, seq, floor_ms, floor_seq) then ms, seq = floor_ms, floor_seq end
if now > ms then ms, seq = now, 0 end
redis.call('HSET', KEYS[1], 'ms', ms, 'seq', seq)

local id = text(ms, seq)
if forked then
  -- readers may have come past the event with what the other node gave them
  lost = id
  redis.call('HSET', KEYS[1], 'lost', lost)
end
redis.call(ARGV[1], ARGV[2], ARGV[3] .. ' ' .. id)
return { id, birth, lost or '', text(now, 0) }
