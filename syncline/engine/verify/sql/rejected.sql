EXISTS (
    SELECT FROM @{rejections}
    WHERE @{rejected_owner}::text = s.@{owner_key} AND @{rejected_member}::text = d.key AND (@{present}) IS TRUE
)
