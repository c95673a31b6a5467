-- How much lies behind a cursor, asked where one batch did not take it all: what somebody who watches is shown.
SELECT count(*) FROM @{source} WHERE @{after_cursor} AND sync_xid < @{horizon}
