-- No bounds at all: the floor.
select 1;
