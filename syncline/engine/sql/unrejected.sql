WHERE NOT EXISTS (SELECT FROM @{rejections} x WHERE x.@{rejected_owner} = d.owner AND x.@{rejected_member} = d.member)
