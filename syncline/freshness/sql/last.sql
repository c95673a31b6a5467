SELECT heard_below::text::bigint AS heard_below FROM syncline.listener WHERE name = $1
