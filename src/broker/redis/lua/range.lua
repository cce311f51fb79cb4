--[[
  Reads the events after a position on some topics of one shard, with what shows whether it is all of them.

  KEYS[1]    clock: a hash of ms and seq (the id given last), birth and lost
  KEYS[2]    last: a hash of the last id by topic
  KEYS[3...] the topics' rings, in the order of the topics below
  ARGV[1]    at most so many events of each topic
  ARGV[2...] for each topic: the topic, and the position to start after

  Returns    {last id given or '', birth or '', lost or '', then for each topic: its last id or '', its entries}
]]
local clock = redis.call('HMGET', KEYS[1], 'ms', 'seq', 'birth', 'lost')
local last_id = clock[1] and string.format('%.0f-%.0f', tonumber(clock[1]), tonumber(clock[2])) or ''
local answer = { last_id, clock[3] or '', clock[4] or '' }
for i = 3, #KEYS do
  local topic, after = ARGV[2 * i - 4], ARGV[2 * i - 3]
  answer[#answer + 1] = redis.call('HGET', KEYS[2], topic) or ''
  answer[#answer + 1] = redis.call('XRANGE', KEYS[i], '(' .. after, '+', 'COUNT', ARGV[1])
end
return answer
