-- Nobody sleeps.
select 1;
