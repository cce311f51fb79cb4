import { useTopics } from './useTopics.js'

export default {
  props: ['topics', 'url'],
  setup: props => useTopics(() => props.topics, { url: props.url, rewind: 20 }),
  template: `
    <p id="state">{{ state }}</p>
    <p id="gaps">{{ gaps.length }}</p>
    <ul>
      <li v-for="{ id, data } in events" :key="id">{{ data.item }}</li>
    </ul>`
}
