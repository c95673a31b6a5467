-- Which of the parked `r` wait for a staged row: for many at once.
@{condition} AND EXISTS (SELECT FROM @{stage} s WHERE s.sync_present AND r.waits_for = @{landed})
