-- Make one replica of a role the owner of a folio group, if the group has no owner or the owner's lease is over.
-- KEYS: 1 the owner, a hash: name, epoch, until (server ms), home (epoch whose files hold the contents; 0: a lone
-- process's files)
-- ARGV: 1 the replica's name, 2 lease ms, 3 ms beyond the lease for which the owner must have been silent
-- Returns {1, epoch, home}, or {0, name of the owner, ms until it may be replaced}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, silence = tonumber(ARGV[2]), tonumber(ARGV[3])
local own = redis.call('HMGET', KEYS[1], 'name', 'epoch', 'until', 'home')
if own[1] and own[1] ~= ARGV[1] then
  local left = tonumber(own[3]) - now
  -- a lease that ends later than a lease can was given before the clock went back: it is over
  if left <= lease and left + silence > 0 then return {0, own[1], left + silence} end
end
local epoch = tonumber(own[2] or 0) + 1
redis.call('HSET', KEYS[1], 'name', ARGV[1], 'epoch', string.format('%.0f', epoch),
  'until', string.format('%.0f', now + lease), 'home', own[4] or '0')
return {1, epoch, tonumber(own[4] or 0)}
