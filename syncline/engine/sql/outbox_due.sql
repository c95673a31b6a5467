-- Whether anything can be done for a vector store now. Each probe finds the first of its kind in an index, however
-- many entries wait; an EXISTS would read all of them once the planner takes the condition for a common one.
EXISTS (
    SELECT FROM unnest(ARRAY[@{collections}]) AS c (name)
    WHERE NOT EXISTS (SELECT FROM sync_vector_delay d WHERE d.collection = c.name AND d.next_retry_at > now())
      AND (
          (
              SELECT o.seq FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NULL ORDER BY o.seq LIMIT 1
          ) IS NOT NULL
          OR (
              SELECT o.next_retry_at FROM sync_outbox o
              WHERE o.collection = c.name AND o.error IS NOT NULL AND o.next_retry_at IS NOT NULL
              ORDER BY o.next_retry_at LIMIT 1
          ) <= now()
          OR EXISTS (
              SELECT FROM sync_vector_embedding e WHERE e.collection = c.name AND e.embedding <> '@{embedding}'
          )
      )
)
