--[[
  Lets go of the events of a topic and of its state. Its last id stays, so that whoever has missed events is told.

  KEYS       last: a hash of the last id by topic; ring: the stream of the topic's events; state: the hash with its state;
             states: the set of the topics with a state
  ARGV[1]    the topic

  Returns    the topic's last id, or that of its state; '' where nothing is known of it
]]
local last = redis.call('HGET', KEYS[1], ARGV[1]) or redis.call('HGET', KEYS[3], 'version') or ''
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('SREM', KEYS[4], ARGV[1])
return last
