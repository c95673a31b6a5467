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
CASE WHEN @{text} ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN @{text}::uuid END

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

-- name: listed
-- What the list of rows has of a target id.
(SELECT @{value} FROM @{list} WHERE sync_row.table_name = '@{table}' AND sync_row.@{by} = @{id})

-- name: listed_id
(SELECT @{id} FROM @{list} WHERE sync_row.table_name = '@{table}' AND sync_row.row_id = @{row_id})

-- name: is_listed
EXISTS (SELECT FROM @{list} WHERE sync_row.table_name = '@{table}' AND sync_row.@{by} = @{id})

-- name: is_row
sync_row.table_name = '@{table}' AND sync_row.@{by} = @{id}

-- name: ours
(SELECT t.*, t.xmin FROM @{target} t WHERE @{is_ours})

-- name: listed_holder
SELECT sync_row.row_id FROM @{list} WHERE sync_row.table_name = '@{table}' AND sync_row.@{by} = @{id}

-- name: id_holder
SELECT @{row_id} AS row_id FROM @{target} h WHERE h.@{id} = @{target_id}

-- name: unshared
-- The id of a key, unless the row that stands under it is another key's.
(SELECT m.id FROM (SELECT @{id} AS id OFFSET 0) m WHERE NOT EXISTS (SELECT FROM (@{holder}) l WHERE l.row_id <> @{row_id}))
