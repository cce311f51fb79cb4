--[[
  How the scripts begin that give ids to events and to positions: the clock, positions, and the look for what the store should still hold.

  KEYS[1]    clock: a hash of ms and seq (the id given last), birth, and lost (up to where the store has forgotten events)
  KEYS[2...] the rings of the witnesses: events that the instance which asks knows to have been stored
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local clock = redis.call('HMGET', KEYS[1], 'ms', 'seq', 'birth', 'lost')
local ms, seq, birth, lost = tonumber(clock[1]), tonumber(clock[2]), clock[3], clock[4]

local function text(ms, seq) return string.format('%.0f-%.0f', ms, seq) end
local function before(ms, seq, ms2, seq2) return ms < ms2 or (ms == ms2 and seq < seq2) end

-- whether a position lies before an id as text
local function precedes(ms, seq, id)
  local id_ms, id_seq = string.match(id, '^(%d+)-(%d+)$')
  return before(ms, seq, tonumber(id_ms), tonumber(id_seq))
end

local base = string.gsub(KEYS[1], 'clock$', '')

local function familyOf(topic) return (string.match(topic, '^(.*/)[^/]*$') or '') .. '*' end

-- Whether a ring never held an event, or has forgotten it. What it has only let go of is what its first one follows on,
-- or lies before the topic's last where the whole ring is gone.
local function lacks(ring, ms, seq)
  local id = text(ms, seq)
  if #redis.call('XRANGE', ring, id, id) > 0 then return false end
  local first = redis.call('XRANGE', ring, '-', '+', 'COUNT', 1)[1]
  local topic = string.sub(ring, #base + #'ring:' + 1)
  local reached = first and string.match(first[2][2], '^%S+')
    or redis.call('HGET', base .. 'last:' .. familyOf(topic), topic)
    or '-'
  return reached ~= id and (reached == '-' or not precedes(ms, seq, reached))
end

-- Whether a witness is missing that the store isn't known to have lost: a node gave it its id that was no longer the
-- one, and what is here has come from another since. ARGV from `a` on has ms and seq of each. Ids grow past all of them.
local function findFork(a)
  local found = false
  for i = 2, #KEYS do
    local known_ms, known_seq = tonumber(ARGV[a + 2 * i - 4]), tonumber(ARGV[a + 2 * i - 3])
    local is_told = lost and (precedes(known_ms, known_seq, lost) or lost == text(known_ms, known_seq))
    found = found or (not is_told and lacks(KEYS[i], known_ms, known_seq))
    if before(ms, seq, known_ms, known_seq) then ms, seq = known_ms, known_seq end
  end
  return found
end

-- Notes that the store has forgotten events up to an id, and tells every instance before what is announced after it.
local function forget(publish, id)
  lost = id
  redis.call('HSET', KEYS[1], 'lost', lost)
  redis.call(publish, base .. 'lost', lost)
end

