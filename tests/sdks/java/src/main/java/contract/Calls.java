package contract;

import dev.restate.common.Request;
import dev.restate.common.Target;
import dev.restate.sdk.CallDurableFuture;
import dev.restate.sdk.Context;
import dev.restate.sdk.annotation.Handler;
import dev.restate.sdk.annotation.Service;
import dev.restate.sdk.common.TerminalException;
import dev.restate.serde.TypeTag;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/** Calls and sends, delayed, with idempotency keys and headers; attach, output, cancel, ids. */
@Service
public class Calls {
  @Handler
  public String call(Context ctx, String name) {
    return BasicsClient.fromContext(ctx).greet(name).await();
  }

  @Handler
  public Map<String, Object> failing(Context ctx, String message) {
    try {
      BasicsClient.fromContext(ctx).fail(message).await();
    } catch (TerminalException e) {
      return Map.of("code", e.getCode(), "message", e.getMessage());
    }
    throw new TerminalException("the call did not fail");
  }

  @Handler
  public String header(Context ctx, String color) {
    return ctx.call(BasicsHandlers.header().header("x-color", color)).await();
  }

  @Handler
  public String send(Context ctx, String key) {
    return CounterClient.fromContext(ctx, key).send().add(1).invocationId();
  }

  /** Twice with one idempotency key: one invocation. */
  @Handler
  public List<String> sendLater(Context ctx, String key) {
    return Stream.of(1, 2)
        .map(
            ignored ->
                ctx.send(
                        CounterHandlers.add(key, 1).idempotencyKey("once"), Duration.ofMillis(50))
                    .invocationId())
        .toList();
  }

  @Handler
  public List<String> identified(Context ctx, String name) {
    // A call by names, without the generated client.
    CallDurableFuture<String> future =
        ctx.call(
            Request.of(
                    Target.service("Basics", "greet"),
                    TypeTag.of(String.class),
                    TypeTag.of(String.class),
                    name)
                .idempotencyKey(name));
    return List.of(future.invocationId(), future.await());
  }

  @Handler
  public String attach(Context ctx, String invocation) {
    return ctx.invocationHandle(invocation, String.class).attach().await();
  }

  @Handler
  public String output(Context ctx, String invocation) {
    return ctx.invocationHandle(invocation, String.class).getOutput().orElse("not yet");
  }

  @Handler
  public void cancel(Context ctx, String invocation) {
    ctx.invocationHandle(invocation).cancel();
  }
}
