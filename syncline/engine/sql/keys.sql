-- Values of keys and their text form (syncline.engine.key_types), in both databases.

-- name: form_text
@{value}::text

-- name: form_uuid
@{value}::text

-- name: form_integer
@{value}::text

-- name: form_numeric
trim_scale(@{value})::text

-- name: form_date
-- Under DateStyle ISO, as every session of ours has it, and the triggers of tables with such keys.
@{value}::text

-- name: form_timestamp
@{value}::text

-- name: form_timestamptz
-- Under TimeZone UTC, likewise.
@{value}::text

-- name: form_bytes
encode(@{value}, 'hex')

-- name: read_text
@{text}

-- name: read_uuid
@{text}::uuid

-- name: read_integer
@{text}::@{type}

-- name: read_numeric
@{text}::numeric

-- name: read_date
-- Immutable, unlike the cast, as a generated column wants it.
syncline.key_date(@{text})

-- name: read_timestamp
syncline.key_timestamp(@{text})

-- name: read_timestamptz
syncline.key_timestamptz(@{text})

-- name: read_bytes
decode(@{text}, 'hex')

-- name: cast_text
@{text}

-- name: cast_uuid
@{text}::uuid

-- name: cast_integer
@{text}::@{type}

-- name: cast_numeric
@{text}::numeric

-- name: cast_date
@{text}::date

-- name: cast_timestamp
@{text}::timestamp

-- name: cast_timestamptz
@{text}::timestamptz

-- name: cast_bytes
decode(@{text}, 'hex')

-- name: safe_text
@{text}

-- name: safe_uuid
-- As its one regular expression, which costs three times as much.
CASE WHEN @{text} COLLATE "C" LIKE '________-____-____-____-____________' AND @{text} COLLATE "C" !~ '[^-0-9a-f]'
    AND length(replace(@{text}, '-', '')) = 32 THEN @{text}::uuid END

-- name: safe_integer
CASE WHEN @{text} ~ '^-?[0-9]{1,18}$' THEN @{text}::bigint
    WHEN @{text} ~ '^-?[0-9]{19}$' THEN CASE WHEN @{text}::numeric BETWEEN -9223372036854775808 AND 9223372036854775807
        THEN @{text}::bigint END
END

-- name: safe_numeric
CASE WHEN @{text} ~ '^(-?[0-9]+([.][0-9]+)?|NaN|-?Infinity)$' THEN @{text}::numeric END

-- name: safe_date
CASE WHEN @{text} ~ '^([0-9]{4,7}-[0-9]{2}-[0-9]{2}( BC)?|-?infinity)$' THEN @{text}::date END

-- name: safe_timestamp
CASE WHEN @{text} ~ '^([0-9]{4,7}(-[0-9]{2}){2} [0-9]{2}(:[0-9]{2}){2}([.][0-9]+)?( BC)?|-?infinity)$' THEN @{text}::timestamp END

-- name: safe_timestamptz
CASE WHEN @{text} ~ '^([0-9]{4,7}(-[0-9]{2}){2} [0-9]{2}(:[0-9]{2}){2}([.][0-9]+)?[+]00( BC)?|-?infinity)$' THEN @{text}::timestamptz END

-- name: safe_bytes
CASE WHEN @{text} ~ '^([0-9a-f]{2})*$' THEN decode(@{text}, 'hex') END

-- name: spelled_uuid
CASE WHEN @{text} ~* '^([{]([0-9a-f]{4}-?){7}[0-9a-f]{4}[}]|([0-9a-f]{4}-?){7}[0-9a-f]{4})$' THEN @{text}::uuid END

-- name: spelled_integer
-- A number that is too large for the key is one that no row has.
CASE WHEN @{text} ~ '^\s*[-+]?[0-9]{1,18}\s*$' THEN @{text}::bigint
    WHEN @{text} ~ '^\s*[-+]?[0-9]{1,200}\s*$' THEN CASE
        WHEN @{text}::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN @{text}::bigint END
    WHEN @{text} ~* '^\s*[-+]?(0x(_?[0-9a-f]){1,15}|0o(_?[0-7]){1,20}|0b(_?[01]){1,62}|[0-9](_?[0-9]){1,17})\s*$' THEN @{text}::bigint
END

-- name: spelled_numeric
CASE WHEN @{text} ~* '^\s*[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)(e[-+]?[0-9]{1,4})?\s*$' OR lower(btrim(@{text})) IN ('nan', 'infinity', '-infinity', '+infinity', 'inf', '-inf', '+inf')
    THEN @{text}::numeric END

-- name: of_id
-- What a target row has, by its id.
SELECT @{value} FROM @{target} @{row} WHERE @{row}.@{id} = @{target_id}

-- name: of_table_row
sync_row.table_name = '@{table}'

-- name: of_table_target
-- Not as the indexes have it: with statistics of before its rows came, the planner expects one row of the table, and
-- reads all of them by the primary key instead of the one by its target id.
sync_row.table_name || '' = '@{table}'

-- name: listed
-- What the list of rows has of a target id.
(SELECT @{value} FROM @{list} WHERE @{of_table} AND sync_row.@{by} = @{id})

-- name: listed_id
(SELECT @{id} FROM @{list} WHERE sync_row.table_name = '@{table}' AND sync_row.row_id = @{row_id})

-- name: listed_gone
-- The id of a row to remove, which may have been looked up.
CASE WHEN @{gone}.place IS NULL THEN @{listed} ELSE @{id} END

-- name: is_listed
EXISTS (SELECT FROM @{list} WHERE @{of_table} AND sync_row.@{by} = @{id})

-- name: is_row
@{of_table} AND sync_row.@{by} = @{id}

-- name: ours
(SELECT t.*, t.xmin FROM @{target} t WHERE @{is_ours})

-- name: named_uuid
-- What Postgres reads as a uuid, in any version.
(CASE WHEN @{text} COLLATE "C" ~ '^([0-9A-Fa-f]{4}-?){7}[0-9A-Fa-f]{4}$|^[{]([0-9A-Fa-f]{4}-?){7}[0-9A-Fa-f]{4}[}]$'
    THEN (@{text})::uuid::text WHEN @{text} IS NOT NULL THEN @{other} END)

-- name: named_integer
(CASE WHEN @{text} COLLATE "C" ~ '^\s*[+-]?[0-9]{1,100}\s*$' AND (CASE WHEN @{text} COLLATE "C" ~ '^\s*[+-]?[0-9]{1,100}\s*$'
        THEN (@{text})::numeric BETWEEN @{least} AND @{greatest} END)
    THEN (@{text})::numeric::bigint::text WHEN @{text} IS NOT NULL THEN @{other} END)

-- name: named_numeric
(CASE WHEN @{text} COLLATE "C" ~ '^\s*[+-]?[0-9]{1,255}([.][0-9]{0,255})?([eE][+-]?[0-9]{1,2})?\s*$|^\s*(NaN|-?Infinity)\s*$'
    THEN trim_scale((@{text})::numeric)::text WHEN @{text} IS NOT NULL THEN @{other} END)

-- name: uuid5_here
syncline.uuid5('@{namespace}'::uuid, @{text})::text

-- name: uuid5_or
CASE WHEN @{text} COLLATE "C" <> '' THEN @{made} ELSE @{key} END

-- name: uuid5_there
-- syncline.uuid5 as an expression, which a write-db can compute as well: 80 steps for each block of SHA-1. No FROM
-- beside the text, whose column may have any name.
(WITH RECURSIVE named (data) AS (SELECT uuid_send('@{namespace}'::uuid) || @{bytes}
), padded (data) AS (
    SELECT data || '\x80'::bytea || decode(repeat('00', (119 - length(data) % 64) % 64), 'hex') || int8send(length(data)::bigint * 8)
    FROM named
), step (n, w, h0, h1, h2, h3, h4, a, b, c, d, e) AS (
    SELECT 0, array_fill(0::bigint, ARRAY[16]), 1732584193::bigint, 4023233417::bigint, 2562383102::bigint, 271733878::bigint, 3285377520::bigint,
           1732584193::bigint, 4023233417::bigint, 2562383102::bigint, 271733878::bigint, 3285377520::bigint
    UNION ALL
    SELECT n + 1, w[2:16] || word.x, n80.h0, n80.h1, n80.h2, n80.h3, n80.h4, n80.a, n80.b, n80.c, n80.d, n80.e
    FROM step CROSS JOIN padded
    CROSS JOIN LATERAL (SELECT CASE WHEN n % 80 < 16
        THEN ('x' || encode(substr(data, n / 80 * 64 + n % 80 * 4 + 1, 4), 'hex'))::bit(32)::bigint
        ELSE w[14] # w[9] # w[3] # w[1] END) AS mixed (x)
    CROSS JOIN LATERAL (SELECT CASE WHEN n % 80 < 16 THEN mixed.x ELSE ((mixed.x << 1) | (mixed.x >> 31)) & 4294967295 END) AS word (x)
    CROSS JOIN LATERAL (SELECT (word.x + e + (((a << 5) | (a >> 27)) & 4294967295) + CASE n % 80 / 20
        WHEN 0 THEN ((b & c) | ((4294967295 # b) & d)) + 1518500249 WHEN 1 THEN (b # c # d) + 1859775393
        WHEN 2 THEN ((b & c) | (b & d) | (c & d)) + 2400959708 ELSE (b # c # d) + 3395469782 END) & 4294967295,
        ((b << 30) | (b >> 2)) & 4294967295) AS turned (a, c)
    CROSS JOIN LATERAL (SELECT CASE WHEN n % 80 = 79 THEN 1 ELSE 0 END) AS last (block)
    CROSS JOIN LATERAL (
        SELECT (h0 + last.block * turned.a) & 4294967295, (h1 + last.block * step.a) & 4294967295, (h2 + last.block * turned.c) & 4294967295,
               (h3 + last.block * step.c) & 4294967295, (h4 + last.block * step.d) & 4294967295
    ) AS sum (h0, h1, h2, h3, h4)
    CROSS JOIN LATERAL (
        SELECT sum.h0, sum.h1, sum.h2, sum.h3, sum.h4, CASE last.block WHEN 1 THEN sum.h0 ELSE turned.a END,
               CASE last.block WHEN 1 THEN sum.h1 ELSE step.a END, CASE last.block WHEN 1 THEN sum.h2 ELSE turned.c END,
               CASE last.block WHEN 1 THEN sum.h3 ELSE step.c END, CASE last.block WHEN 1 THEN sum.h4 ELSE step.d END
    ) AS n80 (h0, h1, h2, h3, h4, a, b, c, d, e)
    WHERE n < length(data) / 64 * 80
)
SELECT (lpad(to_hex(h0), 8, '0') || lpad(to_hex(h1 & 4294905855 | 20480), 8, '0')
    || lpad(to_hex(h2 & 1073741823 | 2147483648), 8, '0') || lpad(to_hex(h3), 8, '0'))::uuid::text
FROM step ORDER BY n DESC LIMIT 1)

-- name: together
-- A key of several columns as one text.
CASE WHEN @{named} THEN jsonb_build_array(@{parts})::text END

-- name: listed_holder
SELECT sync_row.row_id FROM @{list} WHERE @{of_table} AND sync_row.@{by} = @{id}

-- name: id_holder
SELECT @{row_id} AS row_id FROM @{target} h WHERE h.@{id} = @{target_id}

-- name: unshared
-- The id of a key, unless the row that stands under it is another key's.
(SELECT made.id FROM (SELECT @{id} AS id OFFSET 0) made WHERE NOT EXISTS (SELECT FROM (@{holder}) l WHERE l.row_id <> @{row_id}))

-- name: gone_rows
(SELECT g.*, @{id} AS sync_target_id FROM pg_temp.sync_leaving g WHERE g.table_name = '@{table}' OFFSET 0)
