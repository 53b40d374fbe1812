-- KEYS: the token. ARGV: 1 to confirm or 0 to release; time (2). Replies 1 where a reservation was open.
local message = redis.call('GET', KEYS[1])
if not message then return 0 end
local r = find(prefix .. 'm:' .. message)
if not r or r.id ~= string.sub(KEYS[1], -16) or r.state ~= 'r' then return 0 end
if ARGV[1] == '1' or r.releases >= MAX_RELEASES then
  become(r, 'c')
else
  r.releases = r.releases + 1
  become(r, 'x')
end
return 1
