-- Keeps an event among the dead letters. ARGV: 1 its number, 2 the letter in JSON.
return redis.call('HSETNX', base .. 'd', ARGV[1], ARGV[2])
