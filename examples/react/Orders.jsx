import { useTopics } from './useTopics.js'

/** What was ordered last. All but `topics` is told to the client. */
export function Orders({ topics, ...options }) {
  const { events, gaps, state } = useTopics(topics, { ...options, rewind: 20 })
  return (
    <>
      <p className="state" role="status" id="state" data-state={state}>
        {state}
      </p>
      <p>
        gaps: <output id="gaps">{gaps.length}</output>
      </p>
      <ul>
        {events.map(({ id, data }) => (
          <li key={id}>{data.item}</li>
        ))}
      </ul>
    </>
  )
}
