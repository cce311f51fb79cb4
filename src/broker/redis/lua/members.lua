--[[
  Reads who is a member of some topics of one shard.

  KEYS[1]    clock: a hash of ms and seq (the id given last), birth and lost
  KEYS[2...] members: a hash for each topic, "instance JSON" by the member's id

  Returns    {} where the store was emptied and has no new life yet; else {the id given last, birth, then for each topic:
             {id, "instance JSON", id, ...}}. Every change up to that id is in what is returned, and no later one.
]]
local clock = redis.call('HMGET', KEYS[1], 'ms', 'seq', 'birth')
if not clock[3] then return {} end
local answer = { string.format('%.0f-%.0f', tonumber(clock[1]), tonumber(clock[2])), clock[3] }
for i = 2, #KEYS do answer[#answer + 1] = redis.call('HGETALL', KEYS[i]) end
return answer
