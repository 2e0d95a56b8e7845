insert into worker.job_queue (job_type, payload, tenant_id) values ('type_1', '{"player": 1, "reason": "match"}', 'tenant_1');
