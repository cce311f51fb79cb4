import { useTopics } from './useTopics.js'

export function Orders({ topics, url }) {
  const { events, gaps, state } = useTopics(topics, { url, rewind: 20 })
  return (
    <>
      <p id="state">{state}</p>
      <p id="gaps">{gaps.length}</p>
      <ul>
        {events.map(({ id, data }) => (
          <li key={id}>{data.item}</li>
        ))}
      </ul>
    </>
  )
}
