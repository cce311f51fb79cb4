/** What is stored is not what was stored. The message says what is wrong, in words for the operator. */
export class StoreDamaged extends Error {
  override name = 'StoreDamaged'
}
