-- One commit to a folio group: check the turn, compare revisions, write, append to the stream. No rule is in here.
-- KEYS: 1 turn, 2 journal, 3 log, 4 last commits, 5 this request's answer, 6 whether the store went back, 7 polling,
-- 8 bell, 9 answers in their order, 10 and 11 owner among the replicas of the ultravisor and of the host, then one per
-- section of ARGV[2]
-- ARGV: 1 the commit (store.Commit as MessagePack array; bytes as their number among the further arguments),
--       2 names of the sections, 3 role, 4 lease ms, 5 answer ms, 6… bytes
-- A section is its revision (8 bytes, big endian) followed by its data. The hash of last commits has the revisions, too,
-- as `~SECTION`: a part may compare those of sections that it may not read.
local id, writer, cached, expect, patches, events, token, take, adopt, release, journal, request, polls, offer, owner,
  told = unpack(cmsgpack.unpack(ARGV[1]), 1, 16)
local names = cmsgpack.unpack(ARGV[2])
local role, lease, keep = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local LONGEST_ROUND, MOST_ROUNDS = 64, 65536 -- as in state/events.py
local LONG = 86400000
local OWNERS = {ultravisor = KEYS[10], host = KEYS[11]}
local at, revision = {}, {}
for i, name in ipairs(names) do
  at[name] = KEYS[11 + i]
  local head = redis.call('GETRANGE', KEYS[11 + i], 0, 7)
  if #head < 8 then return {'absent', {}, false, {}, 0} end
  revision[name] = struct.unpack('>I8', head)
end

local function answer(status, turn, entries, wait)
  local sections = {}
  for i, name in ipairs(names) do
    local known = cached[name]
    local data = known and known ~= revision[name] and redis.call('GETRANGE', at[name], 8, -1)
    sections[i] = {name, revision[name], data or false}
  end
  return {status, sections, turn and cmsgpack.pack(turn) or false, entries or {}, wait or 0}
end

-- The log is a list: nobody who may append to it may cut it. An entry is the time, 8 bytes, and its data.
local function append(data)
  redis.call('RPUSH', KEYS[3], struct.pack('>I8', now) .. data)
  redis.call('XADD', KEYS[8], 'MAXLEN', 1, '*', 'n', '')
end

local function again(entries, rounds)
  return cmsgpack.pack({type = 'again', entries = entries, rounds = rounds})
end

local function poll_begins(actor, data)
  redis.call('DEL', KEYS[7])
  if actor ~= 0 then redis.call('HSET', KEYS[7], 'actor', actor, 'length', 1, 'known', 0, 'at', 0, 'count', 0, 'step', 1,
    1, data) end
end

-- A thread that polls makes the same entries in every round, from one of its starts to the next. The first round is
-- appended; of those that are equal to it only the number is kept. It becomes an entry before the next other entry, and
-- after 1, 8, 64, ... rounds, so that readers see that it goes on.
-- actor: 1 + the thread that starts a round with this entry, or 0
local function log(data, actor)
  local poll = redis.call('HMGET', KEYS[7], 'actor', 'length', 'known', 'at', 'count', 'step')
  if not poll[1] then
    append(data)
    if actor ~= 0 then poll_begins(actor, data) end
    return
  end
  local length, known, place, count = tonumber(poll[2]), tonumber(poll[3]), tonumber(poll[4]), tonumber(poll[5])
  if known == 0 and actor == tonumber(poll[1]) then known = 1 end
  if known == 0 then
    append(data)
    if length == LONGEST_ROUND then
      poll_begins(actor, data)
    else
      redis.call('HSET', KEYS[7], 'length', length + 1, length + 1, data)
    end
    return
  end
  if redis.call('HGET', KEYS[7], place + 1) == data then
    place = place + 1
    if place == length then place, count = 0, count + 1 end
    local step = tonumber(poll[6])
    if place == 0 and count == step then
      append(again(length, count))
      count, step = 0, math.min(8 * step, MOST_ROUNDS)
    end
    redis.call('HSET', KEYS[7], 'known', 1, 'at', place, 'count', count, 'step', step)
    return
  end
  if count > 0 then append(again(length, count)) end
  for n = 1, place do append(redis.call('HGET', KEYS[7], n)) end
  append(data)
  poll_begins(actor, data)
end

-- who has seen a revision that is not here any more has seen writes that the store has lost: nobody goes on from here
-- before an operator has decided (services/launcher/recover.py). One that was only told of it may have been told wrong.
local said = {}
for _, name in ipairs(told) do said[name] = true end
for name, known in pairs(cached) do
  if known > revision[name] and not said[name] then redis.call('SET', KEYS[6], name) end
end
if redis.call('EXISTS', KEYS[6]) == 1 then return answer('behind') end

local did = redis.call('HGET', KEYS[4], writer)
if did == id then return answer('done') end

-- another replica has taken the group since; who still owns it keeps it for as long as it works
if owner > 0 then
  local own = redis.call('HMGET', OWNERS[role], 'epoch', 'until')
  if own[1] ~= string.format('%.0f', owner) then return answer('owned') end
  local left = tonumber(own[2]) - now
  if left < lease / 2 or left > lease then
    redis.call('HSET', OWNERS[role], 'until', string.format('%.0f', now + lease))
  end
end

-- whether a turn was begun by a former owner of the group: its token names the epoch
local function outlived(token, of)
  local epoch = OWNERS[of] and string.match(token, '^(%d+)%.')
  return epoch and redis.call('HGET', OWNERS[of], 'epoch') ~= epoch
end

if did and tonumber(did) > tonumber(id) then return answer('stale') end -- a copy of it that was long under way

local held = redis.call('GET', KEYS[1])
held = held and cmsgpack.unpack(held)
if offer and outlived(offer[1][1], offer[1][2]) then return answer('moved') end
if held and outlived(held[1], held[2]) then
  if token == held[1] then return answer('lost') end
  held[7] = now
end
if offer and held and held[1] == offer[1][1] then
  token, offer = held[1], nil -- asked again: it was taken
elseif offer then
  local fields, wanted = {}, {}
  for name, known in pairs(offer[2]) do
    fields[#fields + 1], wanted[#wanted + 1] = '~' .. name, known
  end
  local stands = redis.call('HMGET', KEYS[4], offer[3], unpack(fields))
  local counts = offer[1][1] ~= ''
  if counts and stands[1] and tonumber(stands[1]) >= offer[4] then return answer('moved') end
  for i, known in ipairs(wanted) do
    if tonumber(stands[i + 1] or -1) ~= known then return answer('moved') end
  end
  if not journal then
    for _, name in ipairs(expect) do
      if cached[name] ~= revision[name] then return answer('stale') end
    end
  end
  if counts and not journal then redis.call('HSET', KEYS[4], offer[3], offer[4]) end
end
local entries = held and redis.call('LRANGE', KEYS[2], 0, -1) or {}
-- a lease that ends later than a lease can was given before the clock went back: it is over
if held and held[7] - now > lease then held[7] = now end
if held and held[1] ~= token then
  if token ~= '' then return answer('lost') end
  if held[7] > now then return answer('held', held, {}, held[7] - now) end
  if #entries > 0 then
    if held[2] ~= role then return answer('held', held, {}, 0) end
    if not adopt then return answer('left', held, entries) end
  end
elseif not held and token ~= '' then
  return answer('lost')
end

if request then -- an answer is kept with the digest of its request: state/requests.py
  local before = redis.call('GETRANGE', KEYS[5], 0, 15)
  if before ~= '' and before ~= string.sub(ARGV[5 + request], 1, 16) then return answer('reused') end
end
for _, name in ipairs(expect) do
  if cached[name] ~= revision[name] then return answer('stale') end
end
if journal and offer then -- the turn is taken for its beginner
  take = offer[1]
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[4], offer[3], offer[4])
end
if journal then
  if #entries > journal[1] then return answer('done', held, {entries[journal[1] + 1]}) end
  redis.call('RPUSH', KEYS[2], ARGV[5 + journal[2]])
end

local moved = {}
for _, patch in ipairs(patches) do
  local name = patch[1]
  redis.call('SETRANGE', at[name], 8 + patch[2], ARGV[5 + patch[3]])
  moved[name] = true
end
for name in pairs(moved) do
  revision[name] = revision[name] + 1
  if cached[name] == revision[name] - 1 then cached[name] = revision[name] end
  redis.call('SETRANGE', at[name], 0, struct.pack('>I8', revision[name]))
  redis.call('HSET', KEYS[4], '~' .. name, revision[name])
end
if held and held[1] ~= token and #patches + #events > 0 then redis.call('DEL', KEYS[1]) end -- void, and its holder late
for _, blob in ipairs(events) do log(ARGV[5 + blob], polls) end
if take then
  take[7] = now + lease
  redis.call('SET', KEYS[1], cmsgpack.pack(take))
  if not adopt and not journal and token == '' then redis.call('DEL', KEYS[2]) end
elseif release then
  redis.call('DEL', KEYS[1], KEYS[2])
elseif held and token ~= '' then
  held[7] = now + lease
  redis.call('SET', KEYS[1], cmsgpack.pack(held))
end
if request then
  -- an answer is kept for `keep` ms of a clock that the server's own cannot make jump: it goes on with commits, by two
  -- seconds at most; a group without commits forgets after LONG
  local mark = redis.call('HMGET', KEYS[4], '~clock', '~seen')
  local clock = tonumber(mark[1] or 0) + math.min(math.max(now - tonumber(mark[2] or now), 0), 2000)
  redis.call('HSET', KEYS[4], '~clock', string.format('%.0f', clock), '~seen', string.format('%.0f', now))
  redis.call('SET', KEYS[5], ARGV[5 + request], 'PX', LONG)
  redis.call('RPUSH', KEYS[9], string.format('%.0f', clock) .. ' ' .. KEYS[5])
  for _ = 1, 2 do
    local at, key = string.match(redis.call('LINDEX', KEYS[9], 0), '^(%d+) (.*)$')
    if clock - tonumber(at) <= keep then break end
    redis.call('LPOP', KEYS[9])
    redis.call('DEL', key)
    if redis.call('LLEN', KEYS[9]) == 0 then break end
  end
end
redis.call('HSET', KEYS[4], writer, id)
return answer('done', held)
