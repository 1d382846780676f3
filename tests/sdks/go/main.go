// The contract of ../README.md on the official Go SDK.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"sync"
	"time"

	restate "github.com/restatedev/sdk-go"
	"github.com/restatedev/sdk-go/server"
)

type letter struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

type failure struct {
	Code     restate.Code      `json:"code"`
	Message  string            `json:"message"`
	Metadata map[string]string `json:"metadata"`
}

// attempts counts how often a closure was tried.
type attempts struct {
	mutex  sync.Mutex
	counts map[string]int
}

func (a *attempts) next(name string) int {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.counts[name]++
	return a.counts[name]
}

func (a *attempts) of(name string) int {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.counts[name]
}

var tried = attempts{counts: map[string]int{}}

func basics() restate.ServiceDefinition {
	return restate.NewService("Basics").
		Handler("greet", restate.NewServiceHandler(func(ctx restate.Context, name string) (string, error) {
			return fmt.Sprintf("Hello, %s!", name), nil
		})).
		Handler("header", restate.NewServiceHandler(func(ctx restate.Context, _ restate.Void) (string, error) {
			return ctx.Request().Headers.Get("x-color"), nil
		})).
		Handler("fail", restate.NewServiceHandler(func(ctx restate.Context, message string) (string, error) {
			return "", restate.ToTerminalError(
				errors.New(message), restate.WithErrorCode(418), restate.WithMetadata("pot", "small"))
		})).
		// What this attempt drew, and what the first one drew.
		Handler("chance", restate.NewServiceHandler(func(ctx restate.Context, _ restate.Void) ([]string, error) {
			drawn := fmt.Sprintf("%s %d", restate.UUID(ctx), restate.Rand(ctx).Uint64())
			recorded, err := restate.Run(ctx, func(restate.RunContext) (string, error) { return drawn, nil })
			if err != nil {
				return nil, err
			}
			if err := restate.Sleep(ctx, time.Millisecond); err != nil {
				return nil, err
			}
			return []string{drawn, recorded}, nil
		})).
		Handler("nap", restate.NewServiceHandler(func(ctx restate.Context, millis int) (string, error) {
			if err := restate.Sleep(ctx, time.Duration(millis)*time.Millisecond); err != nil {
				return "", err
			}
			return "rested", nil
		}))
}

func runs() restate.ServiceDefinition {
	interval := restate.WithInitialRetryInterval(10 * time.Millisecond)
	return restate.NewService("Runs").
		Handler("value", restate.NewServiceHandler(func(ctx restate.Context, number int) (int, error) {
			return restate.Run(ctx, func(restate.RunContext) (int, error) { return number * 2, nil })
		})).
		Handler("refused", restate.NewServiceHandler(func(ctx restate.Context, _ restate.Void) (string, error) {
			return restate.Run(ctx, func(restate.RunContext) (string, error) {
				return "", restate.ToTerminalError(errors.New("not today"), restate.WithErrorCode(422))
			})
		})).
		// Works the third time; how often it was tried.
		Handler("retried", restate.NewServiceHandler(func(ctx restate.Context, name string) (int, error) {
			return restate.Run(ctx, func(restate.RunContext) (int, error) {
				count := tried.next(name)
				if count < 3 {
					return 0, errors.New("not yet")
				}
				return count, nil
			}, interval)
		})).
		// Never works; what is said after two attempts.
		Handler("exhausted", restate.NewServiceHandler(func(ctx restate.Context, name string) (string, error) {
			err := restate.RunVoid(ctx, func(restate.RunContext) error {
				tried.next(name)
				return errors.New("broken")
			}, interval, restate.WithMaxRetryAttempts(2))
			if err == nil {
				return "it worked", nil
			}
			return fmt.Sprintf("gave up after %d", tried.of(name)), nil
		}))
}

func counter(name string, lazy bool) restate.ServiceDefinition {
	return restate.NewObject(name, restate.WithEnableLazyState(lazy)).
		Handler("add", restate.NewObjectHandler(func(ctx restate.ObjectContext, amount int) (int, error) {
			count, err := restate.Get[int](ctx, "count")
			if err != nil {
				return 0, err
			}
			restate.Set(ctx, "count", count+amount)
			return count + amount, nil
		})).
		Handler("get", restate.NewObjectSharedHandler(func(ctx restate.ObjectSharedContext, _ restate.Void) (int, error) {
			return restate.Get[int](ctx, "count")
		})).
		Handler("keys", restate.NewObjectSharedHandler(
			func(ctx restate.ObjectSharedContext, _ restate.Void) ([]string, error) {
				keys, err := restate.Keys(ctx)
				slices.Sort(keys)
				return keys, err
			})).
		Handler("note", restate.NewObjectHandler(func(ctx restate.ObjectContext, text string) (restate.Void, error) {
			restate.Set(ctx, "note", text)
			return restate.Void{}, nil
		})).
		Handler("clear", restate.NewObjectHandler(func(ctx restate.ObjectContext, _ restate.Void) (restate.Void, error) {
			restate.Clear(ctx, "count")
			return restate.Void{}, nil
		})).
		Handler("clearAll", restate.NewObjectHandler(
			func(ctx restate.ObjectContext, _ restate.Void) (restate.Void, error) {
				restate.ClearAll(ctx)
				return restate.Void{}, nil
			})).
		// Fails after its change: a failed handler is not a transaction that is rolled back.
		Handler("spoil", restate.NewObjectHandler(func(ctx restate.ObjectContext, count int) (restate.Void, error) {
			restate.Set(ctx, "count", count)
			return restate.Void{}, restate.ToTerminalError(errors.New("spoilt"), restate.WithErrorCode(400))
		}))
}

func calls() restate.ServiceDefinition {
	return restate.NewService("Calls").
		Handler("call", restate.NewServiceHandler(func(ctx restate.Context, name string) (string, error) {
			return restate.Service[string](ctx, "Basics", "greet").Request(name)
		})).
		Handler("failing", restate.NewServiceHandler(func(ctx restate.Context, message string) (failure, error) {
			_, err := restate.Service[string](ctx, "Basics", "fail").Request(message)
			if err == nil {
				return failure{}, restate.TerminalErrorf("the call did not fail")
			}
			return failure{err.Code(), err.Message(), err.Metadata().ToMap()}, nil
		})).
		Handler("header", restate.NewServiceHandler(func(ctx restate.Context, color string) (string, error) {
			return restate.Service[string](ctx, "Basics", "header").
				Request(restate.Void{}, restate.WithHeaders(map[string]string{"x-color": color}))
		})).
		Handler("send", restate.NewServiceHandler(func(ctx restate.Context, key string) (string, error) {
			return restate.ObjectSend(ctx, "Counter", key, "add").Send(1).GetInvocationId(), nil
		})).
		// Twice with one idempotency key: one invocation.
		Handler("sendLater", restate.NewServiceHandler(func(ctx restate.Context, key string) ([]string, error) {
			var ids []string
			for range 2 {
				sent := restate.ObjectSend(ctx, "Counter", key, "add").
					Send(1, restate.WithDelay(50*time.Millisecond), restate.WithIdempotencyKey("once"))
				ids = append(ids, sent.GetInvocationId())
			}
			return ids, nil
		})).
		Handler("identified", restate.NewServiceHandler(func(ctx restate.Context, name string) ([]string, error) {
			future := restate.Service[string](ctx, "Basics", "greet").
				RequestFuture(name, restate.WithIdempotencyKey(name))
			id := future.GetInvocationId()
			greeting, err := future.Response()
			if err != nil {
				return nil, err
			}
			return []string{id, greeting}, nil
		})).
		Handler("attach", restate.NewServiceHandler(func(ctx restate.Context, invocation string) (string, error) {
			return restate.AttachInvocation[string](ctx, invocation).Response()
		})).
		Handler("cancel", restate.NewServiceHandler(func(ctx restate.Context, invocation string) (restate.Void, error) {
			restate.CancelInvocation(ctx, invocation)
			return restate.Void{}, nil
		}))
}

func mailbox() restate.ServiceDefinition {
	return restate.NewObject("Mailbox").
		Handler("wait", restate.NewObjectHandler(func(ctx restate.ObjectContext, _ restate.Void) (string, error) {
			awaited := restate.Awakeable[string](ctx)
			restate.Set(ctx, "address", awaited.Id())
			return orRejection(awaited.Result())
		})).
		Handler("address", restate.NewObjectSharedHandler(
			func(ctx restate.ObjectSharedContext, _ restate.Void) (*string, error) {
				return restate.Get[*string](ctx, "address")
			}))
}

func orRejection(text string, err restate.TerminalError) (string, error) {
	if err != nil {
		return "rejected: " + err.Message(), nil
	}
	return text, nil
}

func waits() restate.ServiceDefinition {
	return restate.NewService("Waits").
		Handler("resolve", restate.NewServiceHandler(func(ctx restate.Context, l letter) (restate.Void, error) {
			restate.ResolveAwakeable(ctx, l.ID, l.Text)
			return restate.Void{}, nil
		})).
		Handler("reject", restate.NewServiceHandler(func(ctx restate.Context, l letter) (restate.Void, error) {
			restate.RejectAwakeable(ctx, l.ID, errors.New(l.Text))
			return restate.Void{}, nil
		})).
		Handler("signal", restate.NewServiceHandler(func(ctx restate.Context, _ restate.Void) (string, error) {
			return orRejection(restate.Signal[string](ctx, "go").Result())
		})).
		Handler("sendSignal", restate.NewServiceHandler(func(ctx restate.Context, l letter) (restate.Void, error) {
			restate.ResolveSignal(ctx, l.ID, "go", l.Text)
			return restate.Void{}, nil
		})).
		Handler("rejectSignal", restate.NewServiceHandler(func(ctx restate.Context, l letter) (restate.Void, error) {
			restate.RejectSignal(ctx, l.ID, "go", errors.New(l.Text))
			return restate.Void{}, nil
		})).
		// Counts its cancellation, as a compensation would be done.
		Handler("forever", restate.NewServiceHandler(func(ctx restate.Context, key string) (string, error) {
			text, err := restate.Awakeable[string](ctx).Result()
			if err != nil {
				restate.ObjectSend(ctx, "Counter", key, "add").Send(1)
				return "", err
			}
			return text, nil
		})).
		Handler("parent", restate.NewServiceHandler(func(ctx restate.Context, key string) (string, error) {
			return restate.Service[string](ctx, "Waits", "forever").Request(key)
		}))
}

func combine() restate.ServiceDefinition {
	return restate.NewService("Combine").
		Handler("all", restate.NewServiceHandler(func(ctx restate.Context, names []string) ([]string, error) {
			var futures []restate.Future
			for _, name := range names {
				futures = append(futures, restate.Service[string](ctx, "Basics", "greet").RequestFuture(name))
			}
			for _, err := range restate.Wait(ctx, futures...) {
				if err != nil {
					return nil, err
				}
			}
			var greetings []string
			for _, future := range futures {
				greeting, err := future.(restate.ResponseFuture[string]).Response()
				if err != nil {
					return nil, err
				}
				greetings = append(greetings, greeting)
			}
			return greetings, nil
		})).
		Handler("race", restate.NewServiceHandler(func(ctx restate.Context, name string) (string, error) {
			sleep := restate.After(ctx, time.Hour)
			greeting := restate.Service[string](ctx, "Basics", "greet").RequestFuture(name)
			first, err := restate.WaitFirst(ctx, sleep, greeting)
			if err != nil {
				return "", err
			}
			if first == sleep {
				return "overslept", nil
			}
			return greeting.Response()
		})).
		Handler("timeout", restate.NewServiceHandler(func(ctx restate.Context, _ restate.Void) (string, error) {
			awaited := restate.Awakeable[string](ctx)
			first, err := restate.WaitFirst(ctx, awaited, restate.After(ctx, 10*time.Millisecond))
			if err != nil {
				return "", err
			}
			if first == awaited {
				return "a letter", nil
			}
			return "timed out", nil
		})).
		// The first that succeeds.
		Handler("any", restate.NewServiceHandler(func(ctx restate.Context, name string) (string, error) {
			failing := restate.Service[string](ctx, "Basics", "fail").RequestFuture(name)
			greeting := restate.Service[string](ctx, "Basics", "greet").RequestFuture(name)
			for future, err := range restate.Wait(ctx, failing, greeting) {
				if err != nil {
					return "", err
				}
				if text, err := future.(restate.ResponseFuture[string]).Response(); err == nil {
					return text, nil
				}
			}
			return "", restate.TerminalErrorf("nothing succeeded")
		}))
}

func flow() restate.ServiceDefinition {
	return restate.NewWorkflow("Flow").
		Handler("run", restate.NewWorkflowHandler(func(ctx restate.WorkflowContext, item string) (string, error) {
			restate.Set(ctx, "status", "waiting")
			approval, err := restate.Promise[string](ctx, "approval").Result()
			if err != nil {
				approval = "refused, " + err.Message()
			}
			restate.Set(ctx, "status", "done")
			return fmt.Sprintf("%s: %s", item, approval), nil
		})).
		Handler("status", restate.NewWorkflowSharedHandler(
			func(ctx restate.WorkflowSharedContext, _ restate.Void) (*string, error) {
				return restate.Get[*string](ctx, "status")
			})).
		Handler("approve", restate.NewWorkflowSharedHandler(
			func(ctx restate.WorkflowSharedContext, text string) (restate.Void, error) {
				return restate.Void{}, restate.Promise[string](ctx, "approval").Resolve(text)
			})).
		Handler("refuse", restate.NewWorkflowSharedHandler(
			func(ctx restate.WorkflowSharedContext, reason string) (restate.Void, error) {
				return restate.Void{}, restate.Promise[string](ctx, "approval").Reject(errors.New(reason))
			})).
		Handler("peek", restate.NewWorkflowSharedHandler(
			func(ctx restate.WorkflowSharedContext, _ restate.Void) (*string, error) {
				return restate.Promise[*string](ctx, "approval").Peek()
			})).
		Handler("wait", restate.NewWorkflowSharedHandler(
			func(ctx restate.WorkflowSharedContext, _ restate.Void) (string, error) {
				return restate.Promise[string](ctx, "approval").Result()
			}))
}

func main() {
	endpoint := server.NewRestate()
	for _, definition := range []restate.ServiceDefinition{
		basics(), runs(), counter("Counter", false), counter("LazyCounter", true),
		calls(), mailbox(), waits(), combine(), flow(),
	} {
		endpoint.Bind(definition)
	}
	if err := endpoint.Start(context.Background(), "127.0.0.1:"+os.Getenv("PORT")); err != nil {
		log.Fatal(err)
	}
}
