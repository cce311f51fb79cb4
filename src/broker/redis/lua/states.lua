--[[
  Reads the states of some topics, or their versions alone.

  KEYS       state: for each topic a hash of value and version
  ARGV[1]    'value', or '' for the versions alone
  ARGV[2]    after how many bytes of values no further one is read

  Returns    for each key that was read, in order: version ('' where there is no state), value
]]
local answer, left = {}, tonumber(ARGV[2])
for _, key in ipairs(KEYS) do
  if left <= 0 then break end
  local version = redis.call('HGET', key, 'version')
  local value = version and ARGV[1] ~= '' and redis.call('HGET', key, 'value') or ''
  left = left - #value
  answer[#answer + 1], answer[#answer + 2] = version or '', value
end
return answer
