UPDATE pg_temp.sync_claim SET sync_leaves = sync_tid = ANY ($1::tid[]) WHERE sync_leaves OR sync_tid = ANY ($1::tid[])
