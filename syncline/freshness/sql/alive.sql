SELECT coalesce((SELECT until > clock_timestamp() FROM syncline.listener WHERE name = $1), false)
