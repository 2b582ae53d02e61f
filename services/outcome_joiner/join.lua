-- Applies rows of one partition to the waiting room, in one atomic step, and returns the outcomes that they cause.
--
-- ARGV: prefix, side ("p" predictions | "l" labels), place (side and partition, "l1"), expected offset, time to live
-- (s), number of places, newest event time, next offset, the state of the room in which rows count, then the rows,
-- three values each:
--   predictions: request id, join key ("" = none), header(offset, event time, horizon) .. record
--   labels:      join id, label id, (offset, label, known at, horizon)
-- Numbers are big-endian doubles. A label that will never be known is NaN.
--
-- Keys (each begins with the prefix):
--   ready   "whole", or who rebuilds it; gone with everything else where Redis was emptied
--   o       place -> offset after the last row applied      wm  place -> newest event time
--   p:<id>  a prediction that waits, or may be corrected    c:<id>  its claims, oldest first: one per outcome, and
--           one per label that said the same again, which makes no outcome
--   k:<key> predictions by join key (model and key)         w:<join id>  the labels of a join id
--   l:<id>  labels seen                                     n  counts
--   x, y    predictions and labels by the event time at which they leave
--
-- A claim names its cause, the place and offset of the row that made it. A row that comes again (its first
-- transaction was aborted) changes nothing and returns the outcomes that it claimed the first time.

local prefix, side, place = ARGV[1], ARGV[2], ARGV[3]
local expected, ttl, places = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local JOINED, CORRECTED, NEVER, CONFIRMED = 0, 1, 2, 3
local NAMES = { 'joined', 'corrected', 'never', 'confirmed' }
local found, counts = {}, {}

local function key(name) return prefix .. name end
local function count(name, by) counts[name] = (counts[name] or 0) + (by or 1) end
local function same(a, b) return a == b or (a ~= a and b ~= b) end
local function header(value) return struct.unpack('>ddd', value) end

local function emit(id, value, claim)
  found[#found + 1] = id
  found[#found + 1] = value
  found[#found + 1] = claim
end

local function each_claim(id, visit)
  local all = redis.call('GET', key('c:' .. id))
  local at = 1
  while all and at <= #all do
    local label, known, before, kind, label_id, cause, next_at = struct.unpack('>ddddBc0Bc0', all, at)
    visit(label, known, kind ~= CONFIRMED and cause, string.sub(all, at, next_at - 1))
    at = next_at
  end
end

-- Of two labels the one known later counts; of two known at one instant the larger, whichever comes first.
local function outranks(label, known, before)
  if known ~= before.known then return known > before.known end
  return before.label ~= before.label or label > before.label
end

local function rejected(label, before) return count(same(label, before.label) and 'confirmed' or 'superseded') end

local function claim(id, value, label, known, label_id, cause)
  local last
  each_claim(id, function(held, held_known) last = { label = held, known = held_known } end)
  if last and not outranks(label, known, last) then return rejected(label, last) end
  local kind, before = CORRECTED, 0 / 0
  if not last then
    kind = (label ~= label) and NEVER or JOINED
  elseif same(label, last.label) then
    kind = CONFIRMED
  else
    before = last.label
  end
  local entry = struct.pack('>ddddBc0Bc0', label, known, before, kind, #label_id, label_id, #cause, cause)
  if last then
    redis.call('APPEND', key('c:' .. id), entry)
    redis.call('EXPIRE', key('c:' .. id), ttl)
  else
    redis.call('SET', key('c:' .. id), entry, 'EX', ttl)
  end
  count(NAMES[kind + 1])
  if kind ~= CONFIRMED then emit(id, value, entry) end
end

local function again(id, cause)
  local value
  each_claim(id, function(_, _, by, entry)
    if by == cause then
      value = value or redis.call('GET', key('p:' .. id))
      emit(id, value, entry)
    end
  end)
end

-- Waiting labels of a join id: a flag (they have met a prediction), then the labels as they came. All are kept, for
-- which of them counts depends on the prediction's horizon.
local function waiting(join_id)
  local all = redis.call('GET', key('w:' .. join_id))
  if not all then return nil end
  local held, at = { met = string.byte(all) == 1, all = all, labels = {} }, 2
  while at <= #all do
    local known, label, label_id, next_at = struct.unpack('>ddBc0', all, at)
    held.labels[#held.labels + 1] = { known = known, label = label, id = label_id }
    at = next_at
  end
  return held
end

local function keep(join_id, all) redis.call('SET', key('w:' .. join_id), all, 'EX', ttl) end

local function mark_met(join_id, held)
  if not held.met then keep(join_id, string.char(1) .. string.sub(held.all, 2)) end
end

local function in_time(label, value)
  local _, event_time, horizon = header(value)
  return label.known - event_time <= horizon
end

local function prediction(id, business, value)
  local offset, event_time, horizon = header(value)
  local cause = place .. ':' .. string.format('%.0f', offset)
  if offset < expected then return again(id, cause) end
  if not redis.call('SET', key('p:' .. id), value, 'NX', 'EX', ttl) then return count('repeated_prediction') end
  redis.call('ZADD', key('x'), event_time + 2 * horizon, id .. ' ' .. business)
  count('predictions')
  local join_ids = { 'r:' .. id }
  if business ~= '' then
    redis.call('SADD', key(business), id)
    redis.call('EXPIRE', key(business), ttl)
    join_ids[2] = business
  end
  local best
  for _, join_id in ipairs(join_ids) do
    local held = waiting(join_id)
    if held then
      mark_met(join_id, held)
      for _, label in ipairs(held.labels) do
        if not in_time(label, value) then
          count('late')
        elseif not best or outranks(label.label, label.known, best) then
          best = label
        end
      end
    end
  end
  if best then claim(id, value, best.label, best.known, best.id, cause) end
end

local function asked_for(join_id)
  if string.sub(join_id, 1, 2) == 'r:' then return { string.sub(join_id, 3) } end
  return redis.call('SMEMBERS', key(join_id))
end

local function label_row(join_id, label_id, numbers)
  local offset, label, known, horizon = struct.unpack('>dddd', numbers)
  local cause = place .. ':' .. string.format('%.0f', offset)
  local ids = asked_for(join_id)
  table.sort(ids)
  if offset < expected then
    for _, id in ipairs(ids) do again(id, cause) end
    return
  end
  count('labels')
  if not redis.call('SET', key('l:' .. label_id), 1, 'NX', 'EX', ttl) then return count('duplicate') end
  local held = waiting(join_id)
  local entry = struct.pack('>ddBc0', known, label, #label_id, label_id)
  local met = false
  local this = { known = known, label = label, id = label_id }
  for _, id in ipairs(ids) do
    local value = redis.call('GET', key('p:' .. id))
    if value then
      met = true
      if in_time(this, value) then claim(id, value, label, known, label_id, cause) else count('late') end
    end
  end
  if not met then count('early') end
  local flag = string.char((met or (held and held.met)) and 1 or 0)
  keep(join_id, flag .. (held and string.sub(held.all, 2) or '') .. entry)
  redis.call('ZADD', key('y'), 'GT', known + horizon, join_id)
end

-- What is past its time leaves: labels that never met a prediction, predictions that never met a label.
local function sweep()
  local marks = redis.call('HVALS', key('wm'))
  if #marks < places then return end
  local watermark = math.huge
  for _, mark in ipairs(marks) do watermark = math.min(watermark, tonumber(mark)) end
  local limit = string.format('%.0f', watermark)
  for _, join_id in ipairs(redis.call('ZRANGEBYSCORE', key('y'), '-inf', '(' .. limit, 'LIMIT', 0, 2000)) do
    local held = waiting(join_id)
    if held and not held.met then count('orphan', #held.labels) end
    redis.call('DEL', key('w:' .. join_id))
    redis.call('ZREM', key('y'), join_id)
  end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key('x'), '-inf', '(' .. limit, 'LIMIT', 0, 2000)) do
    local space = string.find(member, ' ', 1, true)
    local id, business = string.sub(member, 1, space - 1), string.sub(member, space + 1)
    if redis.call('EXISTS', key('c:' .. id)) == 0 then count('unlabelled') end
    redis.call('DEL', key('p:' .. id), key('c:' .. id))
    if business ~= '' then redis.call('SREM', key(business), id) end
    redis.call('ZREM', key('x'), member)
  end
end

local held = redis.call('HGET', key('o'), place)
if redis.call('GET', key('ready')) ~= ARGV[9] or not held or tonumber(held) < expected then
  return redis.error_reply('LOST the waiting room does not hold what was applied to it')
end
expected = tonumber(held)
for at = 10, #ARGV, 3 do
  if side == 'p' then
    prediction(ARGV[at], ARGV[at + 1], ARGV[at + 2])
  else
    label_row(ARGV[at], ARGV[at + 1], ARGV[at + 2])
  end
end
if tonumber(ARGV[8]) > expected then
  redis.call('HSET', key('o'), place, ARGV[8])
  local mark = redis.call('HGET', key('wm'), place)
  if not mark or tonumber(mark) < tonumber(ARGV[7]) then redis.call('HSET', key('wm'), place, ARGV[7]) end
  sweep()
end
for name, by in pairs(counts) do redis.call('HINCRBY', key('n'), name, by) end
return found
