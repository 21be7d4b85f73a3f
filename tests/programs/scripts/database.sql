pragma journal_mode = delete;
create table notes (id integer primary key, text text, weight real);
create index by_weight on notes (weight);
with recursive counter (n) as (select 1 union all select n + 1 from counter where n < 20000)
  insert into notes select n, 'note number ' || n, (n * 7919) % 1000 / 10.0 from counter;
begin;
update notes set text = text || ', changed' where id % 3 = 0;
delete from notes where id % 7 = 0;
commit;
begin;
delete from notes;
rollback;
select count(*), round(avg(weight), 3) from notes;
select text from notes where weight > 99.5 order by weight desc, id limit 5;
vacuum;
select group_concat(id) from (select id from notes order by weight, id limit 10);
