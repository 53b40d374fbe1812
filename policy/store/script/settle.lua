-- KEYS: the token. ARGV: prefix, time (2), 1 to confirm or 0 to release, id. Replies 1 where a reservation was open.
local message = redis.call('GET', KEYS[1])
if not message then return 0 end
local r = find(prefix .. 'm:' .. message)
if not r or r.id ~= ARGV[5] or r.state ~= 'r' then return 0 end
if ARGV[4] == '1' or r.releases >= MAX_RELEASES then
  become(r, 'c')
else
  r.releases = r.releases + 1
  become(r, 'x')
end
return 1
