/** A command can't be done, or was done and found something wrong. The message is a line for whoever has called it. */
export class Failed extends Error {
  override name = 'Failed'
}
