-- Keeps an event among the dead letters. ARGV: 2 its number, 3 the letter in JSON.
return redis.call('HSETNX', base .. 'd', ARGV[2], ARGV[3])
