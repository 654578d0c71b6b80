-- Forgets a copy, and marks that for a while. KEYS: the copy, the mark. ARGV: for how many ms.
redis.call('SET', KEYS[2], '1', 'PX', ARGV[1])
redis.call('UNLINK', KEYS[1])
return 1
