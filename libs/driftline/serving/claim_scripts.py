"""What is done with claims and askers in one step of Redis. ``claims.py`` says what they are.

Ids have 16 bytes, places 12, side by side. ``KEYS`` begins with the hashes of the spans, the one to write first.
"""

from driftline.runtime.redis_script import RedisScript

_OWNERS = """
local sub, names, owners, fresh, last = string.sub, {}, {}, {}, 0
local ids = ARGV[2]
for i = 1, #ids / 16 do names[i] = sub(ids, 16 * i - 15, 16 * i) end
for span = 1, tonumber(ARGV[3]) do
  local found = redis.call('HMGET', KEYS[span], unpack(names))
  if span == 1 then
    owners = found
  else
    for i = 1, #names do if found[i] and not owners[i] then owners[i] = found[i] end end
  end
end
local function note(name, place)
  fresh[last + 1], fresh[last + 2] = name, place
  last = last + 2
end
local function add()
  if last > 0 then
    redis.call('HSET', KEYS[1], unpack(fresh))
    redis.call('EXPIRE', KEYS[1], ARGV[1])
  end
end
"""
#: Notes where ids are asked. Returns, of each that was asked elsewhere first, its number and where.
#: ARGV: seconds, ids, spans, places.
FIRST = RedisScript(
    _OWNERS
    + """
local told, new, places = {}, {}, ARGV[4]
for i, name in ipairs(names) do
  local owner, place = owners[i] or new[name], sub(places, 12 * i - 11, 12 * i)
  if not owner then
    new[name] = place
    note(name, place)
  elseif owner ~= place then
    told[#told + 1] = i - 1
    told[#told + 1] = owner
  end
end
add()
return told
"""
)
#: Claims answers over HTTP. Returns, for each, None, the claim of before, or ``T`` where the topic was asked first.
#: KEYS: the spans, the claims. ARGV: seconds, ids, spans, the place of HTTP, seconds of a claim, claims.
CLAIM = RedisScript(
    _OWNERS
    + """
local told = {}
for i, name in ipairs(names) do
  if owners[i] and owners[i] ~= ARGV[4] then
    told[i] = 'T'
  else
    told[i] = redis.call('SET', KEYS[ARGV[3] + i], ARGV[5 + i], 'NX', 'GET', 'EX', ARGV[5])
    if not owners[i] then note(name, ARGV[4]) end
  end
end
add()
return told
"""
)
#: Writes claims, for so many seconds.
KEEP = RedisScript("""
for i, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1])
end
""")
#: Makes a claim new that has no more than so many milliseconds to live; 1 where it did.
TAKE_OVER = RedisScript("""
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > tonumber(ARGV[1]) then return 0 end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
""")
