--[[
  How the scripts append, tick and check begin: what the shard's clock says, positions, and the search for a fork.

  A primary that was deposed may have given ids to events that its successor never got. The history of the shard has
  then forked, and those events are lost. An instance finds that out by checkpoints: events that it knows to have been
  stored. It names them to these scripts, which verify each: the store must still have it, or must have trimmed it.

  KEYS[1]    clock: a hash of ms and seq (the id given last), birth (the position at which this life of the store began),
             lost (up to where this life has lost events that it had stored), returned (the ms at which the store was back
             after nobody had reached it), ordered (the id given last by an instance that keeps orders), and unordered
             (up to where orders may lack events)
  KEYS[2...] the rings of the checkpoints' topics
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local clock = redis.call('HMGET', KEYS[1], 'ms', 'seq', 'birth', 'lost', 'ordered')
local ms, seq, birth, lost = tonumber(clock[1]), tonumber(clock[2]), clock[3], clock[4]

-- Every instance ticks each second. When no id was given for so many ms, none of them has reached the store.
local AWAY = 3000
local was_away = ms and now - ms > AWAY

-- what every key and channel of the shard begins with
local prefix = string.gsub(KEYS[1], 'clock$', '')

local function text(ms, seq) return string.format('%.0f-%.0f', ms, seq) end
local function before(ms, seq, ms2, seq2) return ms < ms2 or (ms == ms2 and seq < seq2) end

-- the id given last before this call; false in a store that has given none
local given = ms and text(ms, seq) or false

-- Moves the clock. Each script that does so says which id it has given last. Where the clock says another one, an
-- instance of an older version has given ids meanwhile: what it stored up to there is in no order.
local function saveClock(ms, seq)
  if given and given ~= clock[5] then redis.call('HSET', KEYS[1], 'unordered', given) end
  redis.call('HSET', KEYS[1], 'ms', ms, 'seq', seq, 'ordered', text(ms, seq))
  if was_away then redis.call('HSET', KEYS[1], 'returned', now) end
  was_away = false
  given, clock[5] = text(ms, seq), text(ms, seq)
end

-- A store that is full refuses a script's first write if that may take room; the later ones it lets pass. What the clock
-- and the ticks take is no room, so they begin with a write that takes none and changes nothing.
local function mayWriteWhenFull() redis.call('HDEL', KEYS[1], 'none') end

-- whether a position lies before an id, which is text
local function precedes(ms, seq, id)
  local id_ms, id_seq = string.match(id, '^(%d+)-(%d+)$')
  return before(ms, seq, tonumber(id_ms), tonumber(id_seq))
end

local function wildcardOf(topic) return (string.match(topic, '^(.*/)[^/]*$') or '') .. '*' end

-- Whether a ring never had an event. If the ring still has it, it did. If the ring only has later ones, it must have
-- trimmed everything up to the event that its first one follows on. If it has none at all, because it has run out, it
-- has let go of everything up to the topic's last id. The event was among those if it is that one, or lies before it.
local function neverHad(ring, ms, seq)
  local id = text(ms, seq)
  if #redis.call('XRANGE', ring, id, id) > 0 then return false end
  local first = redis.call('XRANGE', ring, '-', '+', 'COUNT', 1)[1]
  local topic = string.sub(ring, #prefix + #'ring:' + 1)
  local trimmed_to = first and string.match(first[2][2], '^%S+')
    or redis.call('HGET', prefix .. 'last:' .. wildcardOf(topic), topic)
    or '-'
  if trimmed_to == id then return false end
  return trimmed_to == '-' or not precedes(ms, seq, trimmed_to)
end

-- Whether the store is known to have lost everything up to a position.
local function isDeclared(ms, seq) return lost and (lost == text(ms, seq) or precedes(ms, seq, lost)) end

-- Whether a checkpoint shows a fork that was not declared before. ARGV has ms and seq of each checkpoint, from `a` on.
-- Whatever was found, the next ids lie beyond all of them: no two events may have the same id.
local function findFork(a)
  local found = false
  for i = 2, #KEYS do
    local checkpoint_ms, checkpoint_seq = tonumber(ARGV[a + 2 * i - 4]), tonumber(ARGV[a + 2 * i - 3])
    local is_declared = isDeclared(checkpoint_ms, checkpoint_seq)
    found = found or (not is_declared and neverHad(KEYS[i], checkpoint_ms, checkpoint_seq))
    if before(ms, seq, checkpoint_ms, checkpoint_seq) then ms, seq = checkpoint_ms, checkpoint_seq end
  end
  return found
end

-- Announces something on a channel of the shard. `how` is PUBLISH or SPUBLISH, and of a database that is not 0 also its
-- name (`PUBLISH @3`): pub/sub knows no databases, so what its channels are called has to say it.
local function announce(how, name, message)
  local command, database = string.match(how, '^(%u+) ?(.*)$')
  local channels = string.gsub(prefix, ':$', database .. ':')
  redis.call(command, channels .. name, message)
end

-- Declares that the store has lost events up to an id. Every instance hears it before what is announced after it.
local function declareLost(how, id)
  lost = id
  redis.call('HSET', KEYS[1], 'lost', lost)
  announce(how, 'lost', lost)
end

