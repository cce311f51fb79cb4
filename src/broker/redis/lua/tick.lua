--[[
  Moves a shard's last id to now, and announces it to one instance: when it arrives there, all that was stored before
  has been handed over. Finds out when the store has lost events that this instance knows of.

  KEYS, and what comes before this script: clock.lua
  ARGV[1]    how to announce (see clock.lua)
  ARGV[2]    the instance: its own channel is called after it
  ARGV[3]    number of the tick
  ARGV[4,5]  ms and seq of the position that the instance has reached: ids must grow past it
  ARGV[6,7]  ms and seq of the last event that it knows to have been stored
  ARGV[8]    the birth of the store that it knows
  ARGV[9...] ms and seq of each checkpoint

  Returns    {last id, birth, lost ('' when nothing was), this server's clock as `<ms>-0`}
]]
mayWriteWhenFull()
local how, forked = ARGV[1], false
local floor_ms, floor_seq = tonumber(ARGV[4]), tonumber(ARGV[5])
local event_ms, event_seq = tonumber(ARGV[6]), tonumber(ARGV[7])

if not birth then
  ms, seq = math.max(now, floor_ms + 1), 0
  birth = text(ms, seq)
  redis.call('HSET', KEYS[1], 'birth', birth)
elseif before(ms, seq, event_ms, event_seq) then
  -- this life of the store gave that id and has lost it: a failover, or a restart from an older copy
  ms, seq = event_ms, event_seq
  declareLost(how, text(ms, seq))
elseif birth == ARGV[8] then
  forked = findFork(9)
end
if before(ms, seq, floor_ms, floor_seq) then ms, seq = floor_ms, floor_seq end
if now > ms then ms, seq = now, 0 end
saveClock(ms, seq)

local id = text(ms, seq)
-- up to now, and not only up to the checkpoint: readers may have come further with what the other primary gave them
if forked then declareLost(how, id) end
announce(how, 'i:' .. ARGV[2], ARGV[3] .. ' ' .. id)
return { id, birth, lost or '', text(now, 0) }
