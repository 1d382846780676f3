package contract;

import dev.restate.sdk.Context;
import dev.restate.sdk.annotation.Handler;
import dev.restate.sdk.annotation.Service;
import dev.restate.sdk.common.TerminalException;

/** Completing awakeables, and waiting until cancelled. */
@Service
public class Waits {
  /** What is to reach which awakeable. */
  public record Letter(String id, String text) {}

  @Handler
  public void resolve(Context ctx, Letter letter) {
    ctx.awakeableHandle(letter.id()).resolve(String.class, letter.text());
  }

  @Handler
  public void reject(Context ctx, Letter letter) {
    ctx.awakeableHandle(letter.id()).reject(letter.text());
  }

  /** Counts its cancellation, as a compensation would be done. */
  @Handler
  public String forever(Context ctx, String key) {
    try {
      return ctx.awakeable(String.class).await();
    } catch (TerminalException e) {
      CounterClient.fromContext(ctx, key).send().add(1);
      throw e;
    }
  }

  @Handler
  public String parent(Context ctx, String key) {
    return WaitsClient.fromContext(ctx).forever(key).await();
  }
}
